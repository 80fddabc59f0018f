// Vectors of floats whose width follows the instruction set this file is compiled for, written with the vector
// extension that GCC and Clang share. Everything is inline; no function here allocates.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace ratchet {

#if defined(__AVX512F__)
constexpr int LANES = 16;      // 32 registers of 16 floats
constexpr int TILE_VECS = 2;   // a tile of a matrix product is TILE_ROWS x (TILE_VECS * LANES)
constexpr int TILE_ROWS = 12;  // 12 * 2 accumulators + 2 operands + 1 broadcast fit in 32 registers
constexpr int QUERY_ROWS = 8;
#elif defined(__AVX2__)
constexpr int LANES = 8;  // 16 registers of 8 floats
constexpr int TILE_VECS = 2;
constexpr int TILE_ROWS = 6;
constexpr int QUERY_ROWS = 4;
#else
constexpr int LANES = 4;  // e.g. 32 NEON registers of 4 floats
constexpr int TILE_VECS = 4;
constexpr int TILE_ROWS = 6;
constexpr int QUERY_ROWS = 4;
#endif
constexpr int PANEL = TILE_VECS * LANES;

using Index = int64_t;
typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t VecI __attribute__((vector_size(LANES * 4)));
typedef uint32_t VecU __attribute__((vector_size(LANES * 4)));
typedef uint16_t VecH __attribute__((vector_size(LANES * 2)));

// A bfloat16 number: the upper half of a float. A type of its own so that overloads can tell it from an integer.
struct Bf16 {
    uint16_t bits;
};

static inline Index round_up(Index n, Index to) { return (n + to - 1) / to * to; }

static inline Vec splat(float x) { return x - Vec{}; }

static inline Vec load(const float* p) {
    Vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline Vec load(const Bf16* p) {
    VecH h;
    memcpy(&h, p, sizeof h);
    VecU u = __builtin_convertvector(h, VecU) << 16;
    Vec v;
    memcpy(&v, &u, sizeof v);
    return v;
}

static inline void store(float* p, Vec v) { memcpy(p, &v, sizeof v); }

// Round to nearest, ties to even. Not-a-number does not occur in a cache or a matrix that trains.
static inline void store(Bf16* p, Vec v) {
    VecU u;
    memcpy(&u, &v, sizeof u);
    u = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    VecH h = __builtin_convertvector(u, VecH);
    memcpy(p, &h, sizeof h);
}

static inline float rounded(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    u = (u + 0x7fff + ((u >> 16) & 1)) & 0xffff0000u;
    memcpy(&x, &u, 4);
    return x;
}

static inline void put(float* p, float x) { *p = x; }

static inline void put(Bf16* p, float x) {
    x = rounded(x);
    uint32_t u;
    memcpy(&u, &x, 4);
    p->bits = uint16_t(u >> 16);
}

static inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

static inline float sum(Vec v) {
    // Halving keeps the order of additions fixed, whatever the compiler does with a loop.
    float x[LANES];
    store(x, v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) x[i] += x[i + width];
    return x[0];
}

static inline float largest(Vec v) {
    float x[LANES], m;
    store(x, v);
    m = x[0];
    for (int i = 1; i < LANES; i++) m = x[i] > m ? x[i] : m;
    return m;
}

// exp to about 2 units in the last place; 0 below -87.3. Polynomial of Cephes' expf (Moshier 1989).
static inline Vec exp(Vec x) {
    const Vec magic = splat(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
    Vec low = splat(-87.3f), high = splat(88.3f);
    Vec y = x < low ? low : x;
    y = y > high ? high : y;
    Vec t = y * 1.44269504088896341f + magic;
    Vec n = t - magic;
    Vec r = y - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    VecI bits;
    memcpy(&bits, &t, sizeof bits);
    VecI scale = (bits + (127 - 0x4b400000)) << 23;
    Vec s;
    memcpy(&s, &scale, sizeof s);
    p = p * s;
    return x < low ? Vec{} : p;
}

}  // namespace ratchet
