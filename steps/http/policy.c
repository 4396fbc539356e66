/* What of HTTP is decided without a connection: which failures may pass, how long to pause, which addresses are taken. */
#include <curl/curl.h>
#include <stdlib.h>

#include "steps/http/client.h"

int32_t stm_http_class(const stm_http_outcome *o)
{
    if (o->too_big) return MILL_CLASS_DATA;
    if (o->no_memory) return MILL_CLASS_TRANSIENT;
    switch (o->curl) {
    case CURLE_OK: break;
    case STM_HTTP_UNASKED:
        if (o->status == 0) return MILL_CLASS_TRANSIENT;
        break;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_NOT_BUILT_IN:
    case CURLE_PEER_FAILED_VERIFICATION: /* a certificate does not get better by asking again */
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR: return MILL_CLASS_PERMANENT;
    default: return MILL_CLASS_TRANSIENT;
    }
    switch (o->status) {
    case 408:
    case 425:
    case 429: return MILL_CLASS_TRANSIENT;
    case 501:
    case 505: return MILL_CLASS_PERMANENT; /* the server never will */
    default: return o->status >= 500 ? MILL_CLASS_TRANSIENT : MILL_CLASS_PERMANENT;
    }
}

/* A step of splitmix64. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

int64_t stm_http_backoff_ns(double first_s, double most_s, int32_t attempt, uint64_t seed)
{
    const double chance = (double)(mix(seed + (uint64_t)attempt) >> 11) * 0x1p-53;
    double pause = first_s;

    for (int32_t i = 1; i < attempt && pause < most_s; i++) pause *= 2.0;
    if (pause > most_s) pause = most_s;
    return (int64_t)(pause * (0.5 + 0.5 * chance) * 1e9);
}

static bool has(CURLU *u, CURLUPart part)
{
    char *text = NULL;
    const bool there = curl_url_get(u, part, &text, 0) == CURLUE_OK;

    curl_free(text);
    return there;
}

bool stm_http_url_ok(const char *url, const char **why)
{
    CURLU *u = curl_url();

    *why = NULL;
    if (u == NULL) *why = "there is no memory to look at it";
    else if (curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
        *why = "it is no address, such as https://host/v1";
    else if (has(u, CURLUPART_USER) || has(u, CURLUPART_PASSWORD))
        *why = "it holds a name or password; keys come from api_key_env or api_key_file";
    else if (has(u, CURLUPART_QUERY) || has(u, CURLUPART_FRAGMENT)) *why = "it has a part behind ? or #";
    else {
        char *scheme = NULL;
        if (curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
            (curl_strequal(scheme, "http") == 0 && curl_strequal(scheme, "https") == 0))
            *why = "it begins with neither http:// nor https://";
        curl_free(scheme);
    }
    curl_url_cleanup(u);
    return *why == NULL;
}
