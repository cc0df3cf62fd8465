// Trilinear reading of fields on a slice grid (fourier/slices.py), a block of points at a time.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

// Points handled together: their numbers stay in the first-level cache while their nodes are on the way.
constexpr int BLOCK = 64;

// The cells of the grid that hold a block of points, as interpolation needs them.
struct Cells {
    alignas(64) std::int32_t node[BLOCK];   // the lowest of the eight
    alignas(64) float along_x[BLOCK];       // fraction of the way along x
    alignas(64) float weight[4][BLOCK];     // of the edges at (y, z), (y + 1, z), (y, z + 1), (y + 1, z + 1)
    alignas(64) float sign[BLOCK];          // -1 for points read as the conjugate of their opposite
};

// Nodes of the grid whose zero frequency is at (centre, centre, 0), x fastest.
struct Grid {
    std::int32_t centre;
    std::int32_t row() const { return centre + 1; }
    std::int32_t plane() const { return row() * (2 * centre + 1); }
};

inline std::int32_t floor_of(float value) {
    const auto truncated = static_cast<std::int32_t>(value);
    return truncated - (value < static_cast<float>(truncated));
}

// Cells of points in grid coordinates. A point outside the grid gets no weight.
inline void locate(Grid grid, const float* x, const float* y, const float* z, Cells& cells) {
    const auto edge = static_cast<float>(grid.centre);
    const std::int32_t row = grid.row(), plane = grid.plane(), origin = grid.centre * (row + plane);
    for (int i = 0; i < BLOCK; ++i) {
        const float sign = x[i] < 0.f ? -1.f : 1.f;
        const float px = x[i] * sign, py = y[i] * sign, pz = z[i] * sign;
        const bool inside = (px < edge) & (py < edge) & (py > -edge) & (pz < edge) & (pz > -edge);
        const std::int32_t ix = floor_of(px), iy = floor_of(py), iz = floor_of(pz);
        const float fx = px - static_cast<float>(ix), fy = py - static_cast<float>(iy), fz = pz - static_cast<float>(iz);
        cells.sign[i] = sign;
        cells.node[i] = inside ? origin + iz * plane + iy * row + ix : 0;
        cells.along_x[i] = inside ? fx : 0.f;
        const float high = inside ? fz : 0.f, low = inside ? 1.f - fz : 0.f, step = inside ? fy : 0.f;
        cells.weight[0][i] = low - low * step;
        cells.weight[1][i] = low * step;
        cells.weight[2][i] = high - high * step;
        cells.weight[3][i] = high * step;
    }
}

// Ask for the nodes of a block, `channels` floats each, before they are read.
template <int channels>
inline void fetch(Grid grid, const float* table, const Cells& cells) {
    const std::int64_t edges[4] = {0, grid.row(), grid.plane(), grid.plane() + grid.row()};
    for (int i = 0; i < BLOCK; ++i) {
        const float* node = table + std::int64_t{channels} * cells.node[i];
        for (const auto edge : edges) {
            __builtin_prefetch(node + channels * edge);
            __builtin_prefetch(node + channels * edge + 2 * channels - 1);
        }
    }
}

// The lowest node's distance to the four edges along x, in floats.
template <int channels>
struct Edges {
    std::int64_t offset[4];
    explicit Edges(Grid grid)
        : offset{0, std::int64_t{channels} * grid.row(), std::int64_t{channels} * grid.plane(),
                 std::int64_t{channels} * (grid.plane() + grid.row())} {}
};

// The fields at one point of a block, side by side as they are at the nodes.
template <int channels>
inline void blend(const Edges<channels>& edges, const float* table, const Cells& cells, int i, float* result) {
    const float* node = table + std::int64_t{channels} * cells.node[i];
    float pair[2 * channels] = {};
    for (int edge = 0; edge < 4; ++edge)
        for (int c = 0; c < 2 * channels; ++c) pair[c] += cells.weight[edge][i] * node[edges.offset[edge] + c];
    for (int c = 0; c < channels; ++c) result[c] = pair[c] + cells.along_x[i] * (pair[channels + c] - pair[c]);
}

#if defined(__AVX2__)

template <>
inline void blend<8>(const Edges<8>& edges, const float* table, const Cells& cells, int i, float* result) {
    const float* node = table + std::int64_t{8} * cells.node[i];
#if defined(__AVX512F__)
    // Neighbours along x lie side by side: one register holds both.
    __m512 pair = _mm512_mul_ps(_mm512_set1_ps(cells.weight[0][i]), _mm512_loadu_ps(node));
    for (int edge = 1; edge < 4; ++edge)
        pair = _mm512_fmadd_ps(_mm512_set1_ps(cells.weight[edge][i]), _mm512_loadu_ps(node + edges.offset[edge]), pair);
    const __m256 low = _mm512_castps512_ps256(pair), high = _mm512_extractf32x8_ps(pair, 1);
#else
    __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();
    for (int edge = 0; edge < 4; ++edge) {
        const __m256 weight = _mm256_set1_ps(cells.weight[edge][i]);
        low = _mm256_fmadd_ps(weight, _mm256_loadu_ps(node + edges.offset[edge]), low);
        high = _mm256_fmadd_ps(weight, _mm256_loadu_ps(node + edges.offset[edge] + 8), high);
    }
#endif
    _mm256_storeu_ps(result, _mm256_fmadd_ps(_mm256_set1_ps(cells.along_x[i]), _mm256_sub_ps(high, low), low));
}

#endif

// Eight rows of eight numbers turned into columns of BLOCK.
inline void transpose(const float (&from)[8][8], float (*result)[BLOCK], int first) {
#if defined(__AVX2__)
    __m256 pairs[8], fours[8];
    for (int i = 0; i < 8; i += 2) {
        const __m256 even = _mm256_load_ps(from[i]), odd = _mm256_load_ps(from[i + 1]);
        pairs[i] = _mm256_unpacklo_ps(even, odd);
        pairs[i + 1] = _mm256_unpackhi_ps(even, odd);
    }
    for (int i = 0; i < 8; i += 4) {
        for (int j = 0; j < 2; ++j) {
            fours[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
            fours[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
        }
    }
    for (int i = 0; i < 4; ++i) {
        _mm256_store_ps(result[i] + first, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20));
        _mm256_store_ps(result[i + 4] + first, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31));
    }
#else
    for (int c = 0; c < 8; ++c)
        for (int i = 0; i < 8; ++i) result[c][first + i] = from[i][c];
#endif
}

// The eight numbers of every node at a block of points: result[channel][point].
inline void read_eight(Grid grid, const float* table, const Cells& cells, float (*result)[BLOCK]) {
    const Edges<8> edges(grid);
    for (int first = 0; first < BLOCK; first += 8) {
        alignas(32) float rows[8][8];
        for (int i = 0; i < 8; ++i) blend<8>(edges, table, cells, first + i, rows[i]);
        transpose(rows, result, first);
    }
}

// The two numbers of every node at a block of points.
inline void read_two(Grid grid, const float* table, const Cells& cells, float (*result)[BLOCK]) {
    const Edges<2> edges(grid);
    float rows[BLOCK][2];
    for (int i = 0; i < BLOCK; ++i) blend<2>(edges, table, cells, i, rows[i]);
    for (int i = 0; i < BLOCK; ++i) result[0][i] = rows[i][0], result[1][i] = rows[i][1];
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
