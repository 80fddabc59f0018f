// Matrix products of the training pass: y = x w^T + b, and its gradients. Shapes: x (T, K), w (N, K), y (T, N).
#include "gemm.hpp"
#include "threads.hpp"

namespace ratchet {

Runtime runtime = nullptr;

namespace {

constexpr Index ROW_BLOCK = 8 * TILE_ROWS;

constexpr Index BLOCK_BYTES = 640 * 1024;  // of a second-level cache of 1 MiB or more

thread_local Scratch packed_weight, packed_block, converted;

template <class E>
struct Packed {
    E* data;
    Index steps;
};

// Pack the (inner, columns) matrix b[k * down + n * across] into panels.
template <class E>
Packed<E> pack(const float* b, Index down, Index across, Index inner, Index columns, Scratch& into, Index threads) {
    const Index steps = steps_of(inner, STEP<E>), panels = (columns + PANEL - 1) / PANEL;
    E* data = into.get<E>(panels * steps * PANEL);
    parallel(panels, panels * steps * PANEL > 16384 ? threads : 1, [&](Index p) {
        pack_panel(b + p * PANEL * across, down, across, inner, columns - p * PANEL, data + p * steps * PANEL);
    });
    return {data, steps};
}

// c (rows, columns) = a (rows, inner) times packed panels.
template <class E>
void rows_times_panels(const float* a, Index rows, Index inner, Packed<E> b, const float* bias, float* c,
                       Index columns, Index threads) {
    parallel((rows + ROW_BLOCK - 1) / ROW_BLOCK, threads, [&](Index block) {
        const Index first = block * ROW_BLOCK, count = rows - first < ROW_BLOCK ? rows - first : ROW_BLOCK;
        E* copy = STEP<E> == 1 && sizeof(E) == 4 && !std::is_same<E, Pair>::value
                      ? nullptr
                      : converted.get<E>(ROW_BLOCK * b.steps);
        const E* from = rows_of(a + first * inner, count, inner, copy);
        product(from, b.steps, count, b.data, b.steps, Sink{c + first * columns, columns, columns, bias, false});
    });
}

// `columns` columns of `rows` rows of a (.., stride) matrix, in groups of GROUP: to (groups, steps, GROUP).
template <class E, int GROUP>
void pack_columns(const float* a, Index stride, Index rows, Index columns, E* to) {
    const Index steps = steps_of(rows, STEP<E>), whole = columns / GROUP;
    const size_t left = size_t(columns - whole * GROUP) * 4;
    // Few rows at a time, so that they are still in the first-level cache when the last group is copied from them.
    for (Index from = 0; from < steps; from += 8) {
        const Index end = steps < from + 8 ? steps : from + 8;
        auto next = [&](const float* row, Index k) {
            return STEP<E> == 2 && 2 * k + 1 < rows ? row + stride : nullptr;
        };
        for (Index g = 0; g < whole; g++)
            for (Index k = from; k < end; k++) {
                const float* row = a + k * STEP<E> * stride + g * GROUP;
                copy_step<GROUP>(row, next(row, k), to + (g * steps + k) * GROUP);
            }
        for (Index k = from; left && k < end; k++) {
            const float *row = a + k * STEP<E> * stride + whole * GROUP, *after = next(row, k);
            float edge[2][GROUP] = {};
            memcpy(edge[0], row, left);
            if (after) memcpy(edge[1], after, left);
            copy_step<GROUP>(edge[0], edge[1], to + (whole * steps + k) * GROUP);
        }
    }
}

// gw[n][k] tile over tokens t0 .. t1 of packed g and x, added to what earlier tokens left there.
template <class E>
__attribute__((noinline)) void outer_tile(const E* left, const E* right, Index steps, float* c, Index stride,
                                          Index real_rows, Index real_columns, bool first) {
    Vec acc[TILE_ROWS][TILE_VECS] = {};
    float edge[TILE_ROWS * PANEL];
    const bool whole = real_rows >= TILE_ROWS && real_columns >= PANEL;
    const Index rows = real_rows < TILE_ROWS ? real_rows : TILE_ROWS;
    const Index columns = real_columns < PANEL ? real_columns : PANEL;
    float* at = whole ? c : edge;
    const Index pitch = whole ? stride : PANEL;
    if (!first) {
        if (!whole)
            for (Index m = 0; m < rows; m++) memcpy(edge + m * PANEL, c + m * stride, size_t(columns) * 4);
        for (Index m = 0; m < rows; m++)
            for (int v = 0; v < TILE_VECS; v++) acc[m][v] = load(at + m * pitch + v * LANES);
    }
    tile<TILE_ROWS>(left, std::integral_constant<Index, 1>(), std::integral_constant<Index, TILE_ROWS>(), right, steps,
                    acc);
    for (Index m = 0; m < rows; m++)
        for (int v = 0; v < TILE_VECS; v++) store(at + m * pitch + v * LANES, acc[m][v]);
    if (!whole)
        for (Index m = 0; m < rows; m++) memcpy(c + m * stride, edge + m * PANEL, size_t(columns) * 4);
}

// gw (N, K) = (or +=) g^T x, summed over tokens in order. A thread makes some rows of gw; it packs a block of tokens of
// both operands into memory that stays in its second-level cache while all its tiles pass over them.
template <class E>
void weight_gradient(const float* g, const float* x, Index tokens, Index N, Index K, float* gw, bool add,
                     Index threads) {
    const Index tiles = (N + TILE_ROWS - 1) / TILE_ROWS, panels = (K + PANEL - 1) / PANEL;
    const Index groups = threads < 1 ? 1 : threads < tiles ? threads : tiles;
    parallel(groups, threads, [&](Index group) {
        const Index from = tiles * group / groups, count = tiles * (group + 1) / groups - from;
        const Index width = count * TILE_ROWS + panels * PANEL;
        const Index columns = N - from * TILE_ROWS < count * TILE_ROWS ? N - from * TILE_ROWS : count * TILE_ROWS;
        Index steps = BLOCK_BYTES / (width * Index(sizeof(E))) / 8 * 8;
        steps = steps < 64 ? 64 : steps > 512 ? 512 : steps;
        E* left = packed_block.get<E>(steps * width);
        E* right = left + steps * count * TILE_ROWS;
        for (Index t = 0; t < tokens; t += steps * STEP<E>) {
            const Index rows = tokens - t < steps * STEP<E> ? tokens - t : steps * STEP<E>;
            const Index inner = steps_of(rows, STEP<E>);
            pack_columns<E, TILE_ROWS>(g + t * N + from * TILE_ROWS, N, rows, columns, left);
            pack_columns<E, PANEL>(x + t * K, K, rows, K, right);
            for (Index m = 0; m < count; m++)
                for (Index p = 0; p < panels; p++)
                    outer_tile(left + m * inner * TILE_ROWS, right + p * inner * PANEL, inner,
                               gw + (from + m) * TILE_ROWS * K + p * PANEL, K, columns - m * TILE_ROWS, K - p * PANEL,
                               !add && t == 0);
        }
    });
}

template <class E>
void forward(const float* x, const float* w, const float* b, float* y, Index T, Index K, Index N, Index threads) {
    rows_times_panels(x, T, K, pack<E>(w, 1, K, K, N, packed_weight, threads), b, y, N, threads);
}

template <class E>
void input_gradient(const float* g, const float* w, float* gx, Index T, Index K, Index N, Index threads) {
    rows_times_panels(g, T, N, pack<E>(w, K, 1, N, K, packed_weight, threads), nullptr, gx, K, threads);
}

}  // namespace
}  // namespace ratchet

using namespace ratchet;

extern "C" {

void ratchet_set_runtime(void* entry) { runtime = reinterpret_cast<Runtime>(entry); }

// y (T, N) = x (T, K) w (N, K)^T + b; b may be null.
void ratchet_linear(const float* x, const float* w, const float* b, float* y, Index T, Index K, Index N, Index bf16,
                    Index threads) {
    bf16 ? forward<Pair>(x, w, b, y, T, K, N, threads) : forward<float>(x, w, b, y, T, K, N, threads);
}

// gx (T, K) = g (T, N) w (N, K)
void ratchet_linear_input_grad(const float* g, const float* w, float* gx, Index T, Index K, Index N, Index bf16,
                               Index threads) {
    bf16 ? input_gradient<Pair>(g, w, gx, T, K, N, threads) : input_gradient<float>(g, w, gx, T, K, N, threads);
}

// gw (N, K) = g^T x, or added to gw.
void ratchet_linear_weight_grad(const float* g, const float* x, float* gw, Index T, Index K, Index N, Index add,
                                Index bf16, Index threads) {
    bf16 ? weight_gradient<Pair>(g, x, T, N, K, gw, add, threads)
         : weight_gradient<float>(g, x, T, N, K, gw, add, threads);
}
}
