// What both simulated libraries, cuBLAS and cuBLASLt, make of a call: a problem that can be checked and queued.
#pragma once
#include "../rt.h"
#include <cublas_v2.h>

namespace sim {

// A matrix in memory: `lines` of `line` elements each, `ld` elements from one to the next; a line is a column, or a row
// (row_major).
struct Operand {
    const char *name = ""; // for findings: "A", "D"
    const void *p = nullptr;
    cudaDataType type = CUDA_R_32F;
    int64_t line = 0, lines = 0, ld = 0;
    int64_t stride = 0; // elements from one matrix of a batch to the next
    bool across = false; // op() or row order: element (i, j) of what is multiplied lies at i * ld + j, not at i + j * ld
};

enum class Activation { None, Relu, Gelu };

// D = act(alpha A B + beta C + bias), m x n, A of m x k, B of k x n; bias has m elements of D's type.
struct Problem {
    const char *api = "";
    int64_t m = 0, n = 0, k = 0;
    int batch = 1;
    Operand a, b, c, d;
    float alpha = 1, beta = 0;
    bool tf32 = false; // A and B are rounded to 10 bits of mantissa
    Activation act = Activation::None;
    const void *bias = nullptr;
    int splits = 1; // k in that many parts, summed apart: results differ in the last bits, as those of real algorithms do
    bool reversed = false; // parts are summed from the last to the first
    void *workspace = nullptr;
    size_t workspace_bytes = 0;
};

size_t element_bytes(cudaDataType t); // 0: a type that is not simulated
// Looks at all operands (known memory, reachable, inside its allocation) and queues the product. What is wrong with them is a
// finding, and D is poisoned; the real libraries would read or write elsewhere and say nothing.
cublasStatus_t submit(const Problem &p, cudaStream_t stream, const Site &site);
// The status of a call: injected, or of a lost or absent device; 0 = go on.
cublasStatus_t enter_blas(const char *api, int usual, Call kind = Call::Plain);
// Which type combinations (A = B, C = D) and computing types there are.
bool types_known(cudaDataType ab, cudaDataType cd, cublasComputeType_t compute, bool *tf32);
const char *status_name(cublasStatus_t s);

// Handles that are alive; one that is left at the end of the process is a finding.
class Handles {
public:
    explicit Handles(const char *what) : what_(what) {}
    ~Handles();
    void add(const void *h, const Site &site);
    bool known(const void *h);
    bool remove(const void *h);

private:
    struct Entry {
        const void *h;
        Site site;
    };
    const char *what_;
    std::vector<Entry> live_; // the runtime's lock
};

} // namespace sim
