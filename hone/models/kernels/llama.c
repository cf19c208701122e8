// A whole forward of a Llama-like model in one call: any number of tokens, each with its row of the cache and its position.
// Tokens of a prompt and of many rows go through it alike, without padding. Weights are read where they are, in fp32 or
// bf16, and keys and values stay in the caller's cache; all arithmetic is fp32. Its twin is the model's own forward.
// `llama.py` fills the structures and knows which models fit.
#include "exponential.h"

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t vec_bits __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t vec_half __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

typedef struct {
    const void *weight;  // (out, in)
    const float *bias;   // (out), or null
    const float *a, *b;  // a low-rank change, (rank, in) and (out, rank), or null
    int64_t out, in, rank, half;
    float scale;
} Linear;

typedef struct {
    Linear query, key, value, output, gate, up, down;
    const float *attention_norm, *mlp_norm, *query_norm, *key_norm;
    float *keys, *values;  // (rows, key heads, length, size)
    int64_t window;        // how many positions are seen; 0 is all
} Layer;

typedef struct {
    const Layer *layer;
    const float *norm, *cosine, *sine;  // the last two (positions, size)
    Linear head;                        // tied or not
    const void *embedding;
    int64_t layers, hidden, inner, heads, key_heads, size, length, embedding_half;
    float eps, scale;
} Model;

typedef struct {
    const int64_t *token, *row, *position, *read;
    int64_t tokens, reads, threads;
} Step;

enum { OUT = 4, TOKENS = 3, DEPTH = 512, CHUNK = 48, KEYS = 64 };  // sizes of tiles: registers, then caches

static inline float widen(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}

static inline vec load(const void *weight, int64_t at, int half) {
    if (!half) return *(const vec *)((const float *)weight + at);
    vec_bits bits = __builtin_convertvector(*(const vec_half *)((const uint16_t *)weight + at), vec_bits) << 16;
    return (vec)bits;
}

static inline float load_one(const void *weight, int64_t at, int half) {
    return half ? widen(((const uint16_t *)weight)[at]) : ((const float *)weight)[at];
}

static inline float total(vec x) {
#ifdef __AVX512F__
    typedef float wide __attribute__((vector_size(32)));
    wide y = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
#else
    vec y = x;
#endif
    typedef float four __attribute__((vector_size(16)));
    four z = __builtin_shufflevector(y, y, 0, 1, 2, 3) + __builtin_shufflevector(y, y, 4, 5, 6, 7);
    z += __builtin_shufflevector(z, z, 2, 3, 0, 1);
    return z[0] + z[1];
}

// sum[i][j] = weight row i . input row j over `depth` numbers: every product of the model is made of these.
static inline __attribute__((always_inline)) void tile(int outs, int tokens, const void *weight, int64_t in, int half, const float *x,
                                                       int64_t stride, int64_t depth, float sum[OUT][TOKENS]) {
    vec part[OUT][TOKENS];
    for (int i = 0; i < outs; i++)
        for (int j = 0; j < tokens; j++) part[i][j] = (vec){0};
    int64_t k = 0;
    for (; k + LANES <= depth; k += LANES) {
        vec number[TOKENS];
        for (int j = 0; j < tokens; j++) number[j] = *(const vec *)(x + j * stride + k);
        for (int i = 0; i < outs; i++) {
            vec w = load(weight, i * in + k, half);
            for (int j = 0; j < tokens; j++) part[i][j] += w * number[j];
        }
    }
    for (int i = 0; i < outs; i++)
        for (int j = 0; j < tokens; j++) {
            sum[i][j] = total(part[i][j]);
            for (int64_t rest = k; rest < depth; rest++) sum[i][j] += load_one(weight, i * in + rest, half) * x[j * stride + rest];
        }
}

#define TILE(outs, tokens) \
    (half ? tile(outs, tokens, weight, in, 1, x, stride, depth, sum) : tile(outs, tokens, weight, in, 0, x, stride, depth, sum))

// The same with the sizes known when it is compiled, so that all partial sums stay in registers.
static void some_tile(int outs, int64_t tokens, const void *weight, int64_t in, int half, const float *x, int64_t stride, int64_t depth,
                      float sum[OUT][TOKENS]) {
    if (outs < OUT) TILE(outs, (int)tokens);
    else if (tokens == 1) TILE(OUT, 1);
    else if (tokens == 2) TILE(OUT, 2);
    else TILE(OUT, TOKENS);
}

// y (n, out) = or += scale * x (n, in) weight', by all threads. Weights of several tokens are widened once, a panel at a time.
static void multiply(const void *weight, int64_t half, int64_t out, int64_t in, const float *x, int64_t n, float *y, float scale, int add) {
    for (int64_t chunk = 0; chunk < n; chunk += CHUNK) {
        int64_t end = chunk + CHUNK < n ? chunk + CHUNK : n;
#pragma omp for schedule(static) nowait
        for (int64_t block = 0; block < (out + OUT - 1) / OUT; block++) {
            int64_t o = block * OUT;
            int outs = out - o < OUT ? (int)(out - o) : OUT;
            for (int64_t k = 0; k < in; k += DEPTH) {
                int64_t depth = in - k < DEPTH ? in - k : DEPTH, stride = in;
                const void *from = half ? (const void *)((const uint16_t *)weight + o * in + k) : (const float *)weight + o * in + k;
                float panel[OUT * DEPTH];
                int narrow = (int)half;
                if (half && end - chunk > TOKENS) {
                    for (int i = 0; i < outs; i++)
                        for (int64_t d = 0; d < depth; d++) panel[i * DEPTH + d] = widen(((const uint16_t *)from)[i * in + d]);
                    from = panel, stride = DEPTH, narrow = 0;
                }
                for (int64_t t = chunk; t < end; t += TOKENS) {
                    float sum[OUT][TOKENS];
                    int64_t tokens = end - t < TOKENS ? end - t : TOKENS;
                    some_tile(outs, tokens, from, stride, narrow, x + t * in + k, in, depth, sum);
                    for (int64_t j = 0; j < tokens; j++)
                        for (int i = 0; i < outs; i++) {
                            float *place = y + (t + j) * out + o + i;
                            *place = (add || k ? *place : 0) + scale * sum[i][j];
                        }
                }
            }
        }
    }
#pragma omp barrier
}

// y = or += the layer's output, with its bias and its low-rank change. `low` has room for (n, rank).
static void linear(const Linear *l, const float *x, int64_t n, float *y, int add, float *low) {
    multiply(l->weight, l->half, l->out, l->in, x, n, y, 1, add);
    if (l->a) {
        multiply(l->a, 0, l->rank, l->in, x, n, low, 1, 0);
        multiply(l->b, 0, l->out, l->rank, low, n, y, l->scale, 1);
    }
    if (!l->bias) return;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < l->out; j++) y[i * l->out + j] += l->bias[j];
}

static inline void norm(const float *x, const float *weight, int64_t n, float eps, float *y) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    float r = 1.0f / sqrtf(sum / n + eps);
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * r * weight[i];
}

static void norms(const float *x, const float *weight, int64_t n, int64_t width, float eps, float *y) {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n; i++) norm(x + i * width, weight, width, eps, y + i * width);
}

// One head: normalise where the model does, and turn by the position. The halves of a head are turned against each other.
static inline void turn(const Model *m, float *x, const float *weight, int64_t position) {
    int64_t half = m->size / 2;
    const float *c = m->cosine + position * m->size, *s = m->sine + position * m->size;
    if (weight) norm(x, weight, m->size, m->eps, x);
    for (int64_t i = 0; i < half; i++) {
        float first = x[i], second = x[i + half];
        x[i] = first * c[i] - second * s[i];
        x[i + half] = second * c[i + half] + first * s[i + half];
    }
}

// Turned keys and values of all new tokens into the cache; queries are turned in place.
static void store(const Model *m, const Layer *l, const Step *step, float *q, float *k, const float *v) {
#pragma omp for schedule(static)
    for (int64_t t = 0; t < step->tokens; t++) {
        int64_t position = step->position[t];
        for (int64_t h = 0; h < m->heads; h++) turn(m, q + (t * m->heads + h) * m->size, l->query_norm, position);
        for (int64_t h = 0; h < m->key_heads; h++) {
            int64_t new = (t * m->key_heads + h) * m->size;
            int64_t place = ((step->row[t] * m->key_heads + h) * m->length + position) * m->size;
            turn(m, k + new, l->key_norm, position);
            memcpy(l->keys + place, k + new, m->size * sizeof(float));
            memcpy(l->values + place, v + new, m->size * sizeof(float));
        }
    }
}

// One query on its keys and values, a block of keys at a time with a running maximum. The result replaces the query.
static inline void attend_one(float *q, const float *keys, const float *values, int64_t first, int64_t last, int64_t size, float scale) {
    float top = -INFINITY, total = 0, out[size];
    memset(out, 0, sizeof out);
    for (int64_t start = first; start <= last; start += KEYS) {
        int64_t n = last + 1 - start < KEYS ? last + 1 - start : KEYS;
        float share[KEYS], highest = top;
        for (int64_t i = 0; i < n; i += OUT) {
            float sum[OUT][TOKENS];
            int some = n - i < OUT ? (int)(n - i) : OUT;
            some_tile(some, 1, keys + (start + i) * size, size, 0, q, size, size, sum);
            for (int j = 0; j < some; j++) share[i + j] = sum[j][0] * scale;
        }
        for (int64_t i = 0; i < n; i++) highest = share[i] > highest ? share[i] : highest;
        float kept = top == -INFINITY ? 0 : exp_(top - highest);
        top = highest, total *= kept;
        for (int64_t i = 0; i < n; i++) share[i] = exp_(share[i] - top), total += share[i];
        for (int64_t d = 0; d < size; d++) out[d] *= kept;
        const float *value = values + start * size;
        int64_t i = 0;
        for (; i + 4 <= n; i += 4, value += 4 * size)
            for (int64_t d = 0; d < size; d++)
                out[d] += share[i] * value[d] + share[i + 1] * value[size + d] + share[i + 2] * value[2 * size + d] +
                          share[i + 3] * value[3 * size + d];
        for (; i < n; i++, value += size)
            for (int64_t d = 0; d < size; d++) out[d] += share[i] * value[d];
    }
    for (int64_t d = 0; d < size; d++) q[d] = out[d] / total;
}

static void attend(const Model *m, const Layer *l, const Step *step, float *q) {
    int64_t shared = m->heads / m->key_heads;
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (int64_t t = 0; t < step->tokens; t++)
        for (int64_t h = 0; h < m->key_heads; h++) {
            int64_t at = (step->row[t] * m->key_heads + h) * m->length * m->size, last = step->position[t];
            int64_t first = l->window && last >= l->window ? last - l->window + 1 : 0;
            for (int64_t g = 0; g < shared; g++) {
                float *query = q + ((t * m->key_heads + h) * shared + g) * m->size;
                attend_one(query, l->keys + at, l->values + at, first, last, m->size, m->scale);
            }
        }
}

static void gated(float *gate, const float *up, int64_t size) {
#pragma omp for simd schedule(static)
    for (int64_t i = 0; i < size; i++) gate[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

static void embed(const Model *m, const Step *step, float *x) {
#pragma omp for schedule(static)
    for (int64_t t = 0; t < step->tokens; t++)
        for (int64_t d = 0; d < m->hidden; d++)
            x[t * m->hidden + d] = load_one(m->embedding, step->token[t] * m->hidden + d, (int)m->embedding_half);
}

// Logits (reads, vocabulary) after the tokens that are read. `work` has room for all that llama.py counts.
void llama(const Model *m, const Step *step, float *work, float *logits) {
    int64_t n = step->tokens, wide = m->heads * m->size, narrow = m->key_heads * m->size;
    float *x = work, *y = x + n * m->hidden, *q = y + n * m->hidden, *k = q + n * wide, *v = k + n * narrow;
    float *gate = v + n * narrow, *up = gate + n * m->inner, *low = up + n * m->inner;
#pragma omp parallel num_threads((int)step->threads)
    {
        embed(m, step, x);
        for (const Layer *l = m->layer; l < m->layer + m->layers; l++) {
            norms(x, l->attention_norm, n, m->hidden, m->eps, y);
            linear(&l->query, y, n, q, 0, low);
            linear(&l->key, y, n, k, 0, low);
            linear(&l->value, y, n, v, 0, low);
            store(m, l, step, q, k, v);
            attend(m, l, step, q);
            linear(&l->output, q, n, x, 1, low);
            norms(x, l->mlp_norm, n, m->hidden, m->eps, y);
            linear(&l->gate, y, n, gate, 0, low);
            linear(&l->up, y, n, up, 0, low);
            gated(gate, up, n * m->inner);
            linear(&l->down, gate, n, x, 1, low);
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < step->reads; i++) norm(x + step->read[i] * m->hidden, m->norm, m->hidden, m->eps, y + i * m->hidden);
        linear(&m->head, y, step->reads, logits, 0, low);
    }
}
