// Fused element-wise passes of a training step on a CPU: each reads its rows once or twice and allocates nothing.
// Compiled when first needed (see cpu.py), twice: for bf16 and for fp32 storage. All arithmetic is fp32.
// Every kernel has a twin in plain torch beside its caller, and a test that they agree.
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef BF16
typedef uint16_t T;
static inline float up(T x) {
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}
static inline T down(float x) {  // round to nearest even; what is not a number stays so
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return nan ? 0x7fc0 : (T)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
#define NAME(x) x##_bf16
#else
typedef float T;
static inline float up(T x) { return x; }
static inline T down(float x) { return x; }
#define NAME(x) x##_f32
#endif

#include "exponential.h"

// y = w x / rms(x) for every row; rstd keeps 1 / rms.
void NAME(rms_forward)(long rows, long n, const T *x, const T *w, T *y, float *rstd, float eps) {
#pragma omp parallel for
    for (long i = 0; i < rows; i++) {
        const T *a = x + i * n;
        float sum = 0;
        for (long j = 0; j < n; j++) sum += up(a[j]) * up(a[j]);
        float r = 1.0f / sqrtf(sum / n + eps);
        rstd[i] = r;
        for (long j = 0; j < n; j++) y[i * n + j] = down(up(a[j]) * r * up(w[j]));
    }
}

void NAME(rms_backward)(long rows, long n, const T *dy, const T *x, const T *w, const float *rstd, T *dx) {
#pragma omp parallel for
    for (long i = 0; i < rows; i++) {
        const T *a = x + i * n, *g = dy + i * n;
        float r = rstd[i], dot = 0;
        for (long j = 0; j < n; j++) dot += up(g[j]) * up(w[j]) * up(a[j]);
        dot *= r * r * r / n;
        for (long j = 0; j < n; j++) dx[i * n + j] = down(up(g[j]) * up(w[j]) * r - up(a[j]) * dot);
    }
}

// y = silu(gate) up
void NAME(swiglu_forward)(long size, const T *gate, const T *upper, T *y) {
#pragma omp parallel for simd
    for (long i = 0; i < size; i++) y[i] = down(up(gate[i]) * sigmoid(up(gate[i])) * up(upper[i]));
}

void NAME(swiglu_backward)(long size, const T *dy, const T *gate, const T *upper, T *dgate, T *dupper) {
#pragma omp parallel for simd
    for (long i = 0; i < size; i++) {
        float a = up(gate[i]), s = sigmoid(a), g = up(dy[i]);
        dupper[i] = down(g * a * s);
        dgate[i] = down(g * up(upper[i]) * s * (1.0f + a * (1.0f - s)));
    }
}

// Log-probability of each row's target. With `residual`, the logits become d logp / d logits: one-hot minus softmax.
void NAME(head)(long rows, long n, T *logits, const int64_t *target, float *logp, int residual) {
#pragma omp parallel for
    for (long i = 0; i < rows; i++) {
        T *a = logits + i * n;
        float top = -INFINITY, sum = 0;
        for (long j = 0; j < n; j++) top = up(a[j]) > top ? up(a[j]) : top;
        for (long j = 0; j < n; j++) sum += exp_(up(a[j]) - top);
        float lse = top + logf(sum), chosen = up(a[target[i]]) - lse;
        logp[i] = chosen;
        if (!residual) continue;
        for (long j = 0; j < n; j++) a[j] = down(-exp_(up(a[j]) - lse));
        a[target[i]] = down(1.0f - exp_(chosen));
    }
}

// Raw scores (rows, n) to attention shares, in place, and their log-sum-exp. Causal rows see `row % period` + 1 keys.
void NAME(shares)(long rows, long n, long period, T *scores, float *lse, float scale) {
#pragma omp parallel for
    for (long i = 0; i < rows; i++) {
        T *a = scores + i * n;
        long seen = period ? i % period + 1 : n;
        float top = -INFINITY, sum = 0;
        for (long j = 0; j < seen; j++) top = up(a[j]) > top ? up(a[j]) : top;
        for (long j = 0; j < seen; j++) sum += exp_((up(a[j]) - top) * scale);
        lse[i] = top * scale + logf(sum);
        for (long j = 0; j < seen; j++) a[j] = down(exp_(up(a[j]) * scale - lse[i]));
        for (long j = seen; j < n; j++) a[j] = down(0.0f);
    }
}

// The same again in the backward, with the gradient of the shares turned into that of the raw scores, both in place.
void NAME(shares_backward)(long rows, long n, long period, T *scores, T *grad, const float *lse, const float *delta, float scale) {
#pragma omp parallel for
    for (long i = 0; i < rows; i++) {
        T *a = scores + i * n, *g = grad + i * n;
        long seen = period ? i % period + 1 : n;
        for (long j = 0; j < seen; j++) {
            float p = exp_(up(a[j]) * scale - lse[i]);
            g[j] = down(p * (up(g[j]) - delta[i]) * scale);
            a[j] = down(p);
        }
        for (long j = seen; j < n; j++) a[j] = g[j] = down(0.0f);
    }
}

// Of every row: the place of its largest number (the first of equals), that number, and the logarithm of the sum of exponentials.
void NAME(peak)(long rows, long n, const T *x, int64_t *place, float *largest, float *total) {
#pragma omp parallel for if (rows > 1)
    for (long i = 0; i < rows; i++) {
        const T *a = x + i * n;
        float top = -INFINITY, sum = 0;
        long at = 0;
        for (long j = 0; j < n; j++) top = up(a[j]) > top ? up(a[j]) : top;
        while (at < n - 1 && up(a[at]) != top) at++;
        for (long j = 0; j < n; j++) sum += exp_(up(a[j]) - top);
        place[i] = at, largest[i] = top, total[i] = top + logf(sum);
    }
}
