// Small matrix products. One operand is packed into panels of PANEL columns; the other is read row by row, one number
// at a time broadcast to a vector. Every result is one chain of fused multiply-adds over the inner dimension in order,
// so it does not depend on how many other rows are computed with it, nor on the number of threads.
#pragma once
#include <type_traits>

#include "simd.hpp"

namespace ratchet {

// What a panel holds for one row of the inner dimension. With the bfloat16 dot-product instruction an inner step takes
// two numbers at once; without it bfloat16 products are float products of rounded numbers, which differ by no more
// than the order of additions.
#if defined(__AVX512BF16__)
struct Pair {
    Bf16 low, high;
};
#else
struct Pair {
    float value;
};
#endif
#if defined(__AVX512BF16__)
constexpr int PAIR = 2;
#else
constexpr int PAIR = 1;
#endif

template <class E>
constexpr int STEP = 1;  // numbers of the inner dimension per element
template <>
constexpr int STEP<Pair> = PAIR;

static inline Vec times_plus(float a, const float* b, Vec c) { return splat(a) * load(b) + c; }

static inline Vec times_plus(Pair a, const Pair* b, Vec c) {
#if defined(__AVX512BF16__)
    int32_t bits;
    memcpy(&bits, &a, 4);
    __m512i pairs = _mm512_loadu_si512(b);
    return (Vec)_mm512_dpbf16_ps((__m512)c, (__m512bh)_mm512_set1_epi32(bits), (__m512bh)pairs);
#else
    return splat(a.value) * load(&b->value) + c;
#endif
}

// acc[m][v] += sum over k of a[m * row + k * inner] * panel[k][v]. `inner` and `row` are strides in elements; passing
// std::integral_constant lets the compiler fold them.
template <int ROWS, class E, class Row, class Inner>
static inline __attribute__((always_inline)) void tile(const E* a, Row row, Inner inner, const E* panel, Index steps,
                                                       Vec (&acc)[ROWS][TILE_VECS]) {
    for (Index k = 0; k < steps; k++) {
        for (int m = 0; m < ROWS; m++)
            for (int v = 0; v < TILE_VECS; v++)
                acc[m][v] = times_plus(a[m * row + k * inner], panel + k * PANEL + v * LANES, acc[m][v]);
    }
}

// Where a tile goes: c[m * stride + n] for n < columns, optionally added to what is there, optionally with a bias row.
struct Sink {
    float* c;
    Index stride;
    Index columns;
    const float* bias;  // may be null
    bool add;
};

template <int ROWS>
static inline void emit(const Sink& to, Vec (&acc)[ROWS][TILE_VECS]) {
    for (int m = 0; m < ROWS; m++) {
        float* c = to.c + m * to.stride;
        if (to.columns >= PANEL) {
            for (int v = 0; v < TILE_VECS; v++) {
                Vec x = acc[m][v];
                if (to.bias) x += load(to.bias + v * LANES);
                if (to.add) x += load(c + v * LANES);
                store(c + v * LANES, x);
            }
        } else {
            float x[PANEL];
            for (int v = 0; v < TILE_VECS; v++) store(x + v * LANES, acc[m][v]);
            for (Index n = 0; n < to.columns; n++) {
                float y = to.bias ? x[n] + to.bias[n] : x[n];
                c[n] = to.add ? c[n] + y : y;
            }
        }
    }
}

template <int ROWS, class E>
static __attribute__((noinline)) void tile_rows(const E* a, Index row, const E* panel, Index steps, const Sink& to) {
    Vec acc[ROWS][TILE_VECS] = {};
    tile<ROWS>(a, row, std::integral_constant<Index, 1>(), panel, steps, acc);
    emit<ROWS>(to, acc);
}

// c (rows, columns <= PANEL) = a (rows, steps) times one panel, for any number of rows.
template <class E>
static void panel_product(const E* a, Index row, Index rows, const E* panel, Index steps, Sink to) {
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS, a += TILE_ROWS * row, to.c += TILE_ROWS * to.stride)
        tile_rows<TILE_ROWS>(a, row, panel, steps, to);
    switch (rows) {
        case 1: return tile_rows<1>(a, row, panel, steps, to);
        case 2: return tile_rows<2>(a, row, panel, steps, to);
        case 3: return tile_rows<3>(a, row, panel, steps, to);
        case 4: return tile_rows<4>(a, row, panel, steps, to);
        case 5: return tile_rows<5>(a, row, panel, steps, to);
#if defined(__AVX512F__)
        case 6: return tile_rows<6>(a, row, panel, steps, to);
        case 7: return tile_rows<7>(a, row, panel, steps, to);
        case 8: return tile_rows<8>(a, row, panel, steps, to);
        case 9: return tile_rows<9>(a, row, panel, steps, to);
        case 10: return tile_rows<10>(a, row, panel, steps, to);
        case 11: return tile_rows<11>(a, row, panel, steps, to);
#endif
        default: return;
    }
}

// c (rows, columns) = a (rows, steps) times all panels of a packed matrix.
template <class E>
static void product(const E* a, Index row, Index rows, const E* panels, Index steps, Sink to) {
    const Index all = to.columns;
    const float* bias = to.bias;
    float* c = to.c;
    for (Index n = 0; n < all; n += PANEL, panels += steps * PANEL) {
        to.c = c + n;
        to.bias = bias ? bias + n : nullptr;
        to.columns = all - n;
        panel_product(a, row, rows, panels, steps, to);
    }
}

static inline Index steps_of(Index inner, Index step) { return (inner + step - 1) / step; }

static inline Pair make_pair(float low, float high) {
    Pair p;
#if defined(__AVX512BF16__)
    put(&p.low, low);
    put(&p.high, high);
#else
    (void)high;
    p.value = rounded(low);
#endif
    return p;
}

// Rows of a (rows, inner) as elements, (rows, steps): a copy for bfloat16, the matrix itself for float.
static inline const float* rows_of(const float* a, Index, Index, float*) { return a; }

static inline const Pair* rows_of(const float* a, Index rows, Index inner, Pair* to) {
#if defined(__AVX512BF16__)
    const Index steps = steps_of(inner, 2);
    for (Index r = 0; r < rows; r++, a += inner) {
        Bf16* out = reinterpret_cast<Bf16*>(to + r * steps);
        Index i = 0;
        for (; i + LANES <= inner; i += LANES) {
            __m256i h = (__m256i)_mm512_cvtneps_pbh((__m512)load(a + i));
            memcpy(out + i, &h, sizeof h);
        }
        for (; i < inner; i++) put(out + i, a[i]);
        if (inner & 1) put(out + inner, 0.f);
    }
#else
    for (Index i = 0; i < rows * inner; i++) to[i].value = rounded(a[i]);
#endif
    return to;
}

// COUNT neighbouring columns of one inner step, as elements; `next` is the row after `row`, or null after the last.
template <int COUNT>
inline void copy_step(const float* row, const float*, float* to) {
    memcpy(to, row, sizeof(float) * COUNT);
}

template <int COUNT>
inline void copy_step(const float* row, const float* next, Pair* to) {
#if defined(__AVX512BF16__)
    // Two rounded numbers side by side in 32 bits: convert 16 + 16 at once, then interleave.
    const __m512i interleave = (__m512i)(VecU{0x00100000, 0x00110001, 0x00120002, 0x00130003, 0x00140004, 0x00150005,
                                              0x00160006, 0x00170007, 0x00180008, 0x00190009, 0x001a000a, 0x001b000b,
                                              0x001c000c, 0x001d000d, 0x001e000e, 0x001f000f});
    for (int n = 0; n < COUNT; n += 16) {
        const __mmask16 real = COUNT - n >= 16 ? 0xffff : __mmask16((1 << (COUNT - n)) - 1);
        const __m512 low = _mm512_maskz_loadu_ps(real, row + n);
        const __m512 high = next ? _mm512_maskz_loadu_ps(real, next + n) : _mm512_setzero_ps();
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
        _mm512_mask_storeu_epi32(to + n, real, _mm512_permutexvar_epi16(interleave, both));
    }
#else
    (void)next;
    for (int n = 0; n < COUNT; n++) to[n].value = rounded(row[n]);
#endif
}

// One panel (steps, PANEL) of the matrix whose element (k, n) is b[k * down + n * across]; down or across is 1.
template <class E>
static void pack_panel(const float* b, Index down, Index across, Index inner, Index columns, E* panel) {
    const Index steps = steps_of(inner, STEP<E>);
    const Index width = columns < PANEL ? columns : PANEL;
    if (across == 1) {
        for (Index k = 0; k < steps; k++) {
            const Index i = k * STEP<E>;
            const float *row = b + i * down, *next = STEP<E> == 2 && i + 1 < inner ? row + down : nullptr;
            if (width == PANEL) {
                copy_step<PANEL>(row, next, panel + k * PANEL);
                continue;
            }
            float edge[2][PANEL] = {};
            memcpy(edge[0], row, size_t(width) * 4);
            if (next) memcpy(edge[1], next, size_t(width) * 4);
            copy_step<PANEL>(edge[0], edge[1], panel + k * PANEL);
        }
        return;
    }
    // A piece of each row at a time: the piece of the panel stays in the first-level cache while it is written.
    constexpr Index PIECE = 64;
    E piece[PIECE];
    if (width < PANEL) memset(static_cast<void*>(panel), 0, size_t(steps * PANEL) * sizeof(E));
    for (Index k0 = 0; k0 < steps; k0 += PIECE) {
        const Index count = steps - k0 < PIECE ? steps - k0 : PIECE, first = k0 * STEP<E>;
        const Index numbers = inner - first < count * STEP<E> ? inner - first : count * STEP<E>;
        for (Index n = 0; n < width; n++) {
            const E* row = rows_of(b + n * across + first, 1, numbers, piece);
            for (Index k = 0; k < count; k++) panel[(k0 + k) * PANEL + n] = row[k];
        }
    }
}

}  // namespace ratchet
