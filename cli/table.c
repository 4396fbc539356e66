#include "table.h"

const cli_flag cli_flags[CLI_FLAGS] = {
    [CLI_RUN] = {"run", 0, "DIR", "run directory (default: runs/NAME; of merge: the folder of the first shard)", "dir", false},
    [CLI_SET] = {"set", 0, "STEP.KEY=VALUE",
                 "replace a key or parameter for this run (steps check: TYPE.PARAMETER=VALUE); may be given several times", NULL,
                 true},
    [CLI_FRESH] = {"fresh", 0, NULL, "ignore what the run directory holds of earlier runs", NULL, false},
    [CLI_DRY_RUN] = {"dry-run", 0, NULL,
                     "one batch of each generator, no file written (but that of --trace), sinks' rows to "
                     "standard output as JSON lines", NULL, false},
    [CLI_LIMIT] = {"limit", 0, "N", "take N rows of each generator", NULL, false},
    [CLI_THREADS] = {"threads", 0, "N", "driver threads (default: processors the process may use)", NULL, false},
    [CLI_DRAIN] = {"drain-timeout", 0, "TIME", "how long rows in the pipeline may take after the first INT or USR1 (default: 60s)",
                   NULL, false},
    [CLI_QUIET] = {"quiet", 'q', NULL, "no progress and no summary, warnings and errors only", NULL, false},
    [CLI_JSON] = {"json", 0, NULL, "JSON to standard output", NULL, false},
    [CLI_PLUGIN] = {"plugin", 0, "FILE.so", "open a plugin, too; may be given several times", "file", true},
    [CLI_COLUMN] = {"column", 0, "NAME=TYPE",
                    "check: a column that arrives, or the type of a declared input; may be given several times", NULL, true},
    [CLI_TIMEOUT] = {"timeout", 0, "TIME", "check: how long one check may take before the step counts as hung (default: 20s)", NULL,
                     false},
    [CLI_CLASS] = {"class", 0, "CLASS",
                   "only failures of this class: permanent, transient, data, device; may be given several times",
                   "permanent transient data device", true},
    [CLI_STEP] = {"step", 0, "STEP", "only failures of this step", NULL, false},
    [CLI_DEVICES] = {"devices", 0, "FILE",
                     "a machine to plan for instead of this one: XML of hwloc or NCCL, or text (docs/placement.md)", "file", false},
    [CLI_PLACEMENT] = {"placement", 0, "WHO", "auto, external or explicit: who assigns GPUs to replicas", "auto external explicit",
                       false},
    [CLI_RESTARTS] = {"restarts", 0, "N", "processes in a row that may die without the run getting anywhere (default: 3)", NULL,
                      false},
    [CLI_NO_SUPERVISE] = {"no-supervise", 0, NULL, "work in this process, for debuggers: a crash of a step ends the run", NULL,
                          false},
    [CLI_FOLLOW] = {"follow", 'f', NULL, "go on as long as the run does", NULL, false},
    [CLI_METRICS_PORT] =
        {"metrics-port", 0, "N",
         "give metrics to Prometheus on http://127.0.0.1:N/metrics as long as the run goes on; 0: on any free port", NULL, false},
    [CLI_TRACE] = {"trace", 0, "FILE", "write what every thread and replica did when into FILE, for Perfetto or chrome://tracing",
                   "file", false},
    [CLI_TIME_LEFT] = {"time-left", 0, "TIME",
                       "end in order before so much time has passed, with exit code 75 (default: until SLURM_JOB_END_TIME, where "
                       "that is set); none: no limit",
                       NULL, false},
    [CLI_SHARD] = {"shard", 0, "I/N",
                   "take part I of N of every generator's rows (1/4 .. 4/4), into shard-I-of-N in the run directory; slurm: the "
                   "task of the job array",
                   NULL, false},
    [CLI_HELP] = {"help", 'h', NULL, "say this", NULL, false},
};

#define B(flag) (1u << (flag))

const cli_verb cli_verbs[] = {
    {"run", "FILE", 1, 1,
     B(CLI_RUN) | B(CLI_SET) | B(CLI_FRESH) | B(CLI_DRY_RUN) | B(CLI_LIMIT) | B(CLI_THREADS) | B(CLI_DRAIN) | B(CLI_QUIET) |
         B(CLI_JSON) | B(CLI_PLACEMENT) | B(CLI_METRICS_PORT) | B(CLI_TRACE) | B(CLI_RESTARTS) | B(CLI_NO_SUPERVISE) |
         B(CLI_TIME_LEFT) | B(CLI_SHARD),
     "yaml", "run a pipeline",
     "Checks FILE, plans, runs. Progress goes to standard error: a live table on a terminal, else a line now and then. The first "
     "INT or USR1 takes no more rows and finishes those in the pipeline; TERM (or HUP, unless ignored) drops what is not being "
     "worked on and is gone within 4 seconds; a second signal is gone within 1. The work is done by a child process: when a step "
     "crashes or never returns, another child goes on, and rows that end processes are found and left out. Errors of rows are "
     "listed in errors.jsonl in the run directory."},
    {"resume", "[RUN]", 0, 1,
     B(CLI_THREADS) | B(CLI_DRAIN) | B(CLI_QUIET) | B(CLI_JSON) | B(CLI_METRICS_PORT) | B(CLI_TRACE) | B(CLI_RESTARTS) |
         B(CLI_NO_SUPERVISE) | B(CLI_TIME_LEFT),
     "dir", "go on with a run that was stopped",
     "RUN is a run directory, the working directory by default. The pipeline, what was set and the working directory are those "
     "that the run was started with. Unlike `run`, it never begins anything over: where something changed that the results "
     "depend on (a parameter, an input, a model, a plugin), it says what, and ends with exit code 65. A complete run stays as it "
     "is."},
    {"retry", "RUN", 1, 1,
     B(CLI_CLASS) | B(CLI_STEP) | B(CLI_THREADS) | B(CLI_DRAIN) | B(CLI_QUIET) | B(CLI_JSON) | B(CLI_RESTARTS) |
         B(CLI_NO_SUPERVISE) | B(CLI_TIME_LEFT),
     "dir", "run rows that failed again",
     "RUN is the directory of a run that has ended. The rows that failed, of --class and --step where they are given, run again "
     "from what is kept in front of the steps where they failed, and the outputs are written as if they had not failed; those "
     "that fail again stay, with their new cause. A global that gets other rows takes all of them again. The outputs stay as "
     "they are until the new ones are complete. Stopped or killed, it goes on when it is called again. Where rows cannot run "
     "alone (routers, joins by position, steps that look at other rows), or something has changed since, it says so and ends "
     "with exit code 65."},
    {"merge", "RUN...", 1, CLI_MOST_OPERANDS,
     B(CLI_RUN) | B(CLI_FRESH) | B(CLI_THREADS) | B(CLI_DRAIN) | B(CLI_QUIET) | B(CLI_JSON) | B(CLI_METRICS_PORT) | B(CLI_TRACE) |
         B(CLI_RESTARTS) | B(CLI_NO_SUPERVISE) | B(CLI_TIME_LEFT),
     "dir", "put the shards of a run together",
     "RUN is the run directory of a shard, or a folder that holds all of them (runs/NAME). Into --run DIR, by default the folder "
     "that holds the first shard, its sinks write what they would have written in one run of all rows, byte for byte. Globals, "
     "and what is behind them, run here, over the rows of all shards. Every shard must be there once, be finished, and be of the "
     "same pipeline and inputs. A merge that was stopped or killed goes on when it is called again."},
    {"check", "FILE", 1, 1, B(CLI_RUN) | B(CLI_SET) | B(CLI_JSON) | B(CLI_DEVICES) | B(CLI_PLACEMENT), "yaml",
     "say what is wrong with a pipeline",
     "Finds whatever can be known without loading anything: keys, step types, parameters, connections, columns, headers of files."},
    {"plan", "FILE", 1, 1, B(CLI_RUN) | B(CLI_SET) | B(CLI_JSON) | B(CLI_DEVICES) | B(CLI_PLACEMENT), "yaml",
     "say what a run would do",
     "Steps, columns and types on every edge, batch sizes, replicas, credit in rows, memory, stages; for steps on GPUs each "
     "replica's devices: position, UUID, PCI bus id, NUMA node, cores."},
    {"errors", "RUN", 1, 1, B(CLI_CLASS) | B(CLI_STEP) | B(CLI_JSON), "dir",
     "list the errors of a run, while it goes on or after its end",
     "RUN is a run directory. Of a run that goes on, or was killed, those that it has written down (commit_interval). With --json "
     "the records, one JSON object per line."},
    {"status", "RUN", 1, 1, B(CLI_FOLLOW) | B(CLI_JSON), "dir", "say how a run is, while it goes on or after its end",
     "RUN is a run directory, of a run on this machine or another. With --follow a live table, until the run has ended. With "
     "--json what RUN/progress.json holds (docs/seeing-a-run.md)."},
    {"logs", "RUN [STEP[REPLICA]]", 1, 2, B(CLI_FOLLOW) | B(CLI_JSON), "dir", "print the log of a run",
     "RUN is a run directory. STEP or STEP[REPLICA] picks the lines of one step or replica (quote the brackets in a shell). With "
     "--json the lines as they were written, one JSON object each."},
    {"report", "RUN", 1, 1, B(CLI_JSON), "dir", "write the report of a run",
     "Writes RUN/report.html, one file that needs nothing else, and prints where it is. A run writes it at its end; this makes "
     "it for one that goes on or was killed."},
    {"trace", "RUN KEY", 2, 2, B(CLI_JSON), "dir", "say what became of one row",
     "RUN is a run directory; KEY names a row as errors.jsonl does: STEP:ROW, then .CHILD for each expansion (packages:12, "
     "packages:12.0). For each step: whether the row came and left, in which batch, its values there, why it failed; then the "
     "rows that came of it. It is found in what the run keeps: rows in front of sinks and globals, and outputs of steps with "
     "`cache: true`. With --json one object, values uncut."},
    {"steps", "list | describe TYPE | check PLUGIN.so", 1, 2,
     B(CLI_PLUGIN) | B(CLI_SET) | B(CLI_COLUMN) | B(CLI_TIMEOUT) | B(CLI_JSON), "list describe check",
     "step types there are, and what they take",
     "list: one line per type. describe: parameters and columns of one. check: run a plugin through the contract of step types "
     "on generated rows, each check in a process of its own; `check builtin` runs stepmill's own. Ends with 0, 1 when something "
     "is wrong, 2 when a type could not be run without values or columns, which it names."},
    {"devices", "", 0, 0, B(CLI_JSON) | B(CLI_DEVICES), NULL, "processors and GPUs that were found",
     "And why something was not. With --devices those of the machine that FILE describes."},
    {"doctor", "", 0, 0, B(CLI_JSON), NULL, "look at this machine for what slows or stops runs",
     "Ends with exit code 1 when something would stop a run."},
    {"schema", "", 0, 0, B(CLI_JSON), NULL, "print the JSON schema of the pipeline file",
     "For editors: completion and checks while writing. It is JSON with and without --json."},
    {"version", "", 0, 0, B(CLI_JSON), NULL, "print the version", ""},
    {"help", "[VERB]", 0, 1, 0, "verbs", "say what a verb does", ""},
};
const size_t cli_verb_count = sizeof cli_verbs / sizeof *cli_verbs;

const cli_exit cli_exits[] = {
    {0, "done"},
    {1, "a step could not load"},
    {2,
     "a generator, a global or a sink failed, or a step with on_error: stop; or processes died and it was of no use to start more"},
    {3, "done, with more imputed rows than max_errors"},
    {64, "the command was called wrongly"},
    {65, "the pipeline file is wrong"},
    {73, "the run directory is in use"},
    {75, "stopped by a signal or because the time was over; run again, or resume, to go on"},
};
const size_t cli_exit_count = sizeof cli_exits / sizeof *cli_exits;
