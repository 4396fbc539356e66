/* UTF-8 check: no short or overlong forms, no surrogates, nothing past U+10FFFF. */
#ifndef STM_BATCH_UTF8_H
#define STM_BATCH_UTF8_H

/** First byte of the first malformed sequence in [p, end), NULL when there is none. */
const unsigned char *stm_utf8_bad(const unsigned char *p, const unsigned char *end);

#endif
