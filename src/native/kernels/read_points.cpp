// Fields on a slice grid at many points (fourier/slices.py).
#include <algorithm>

#include "kernels.h"
#include "trilinear.h"

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

namespace {

template <int channels>
void read(const float* table, Grid grid, const float* points, std::int64_t count, float* result) {
    const Edges<channels> edges(grid);
    for (std::int64_t start = 0; start < count; start += BLOCK) {
        const int size = static_cast<int>(std::min<std::int64_t>(BLOCK, count - start));
        alignas(64) float point[3][BLOCK] = {};
        for (int i = 0; i < size; ++i)
            for (int axis = 0; axis < 3; ++axis) point[axis][i] = points[3 * (start + i) + axis];
        Cells cells;
        locate(grid, point[0], point[1], point[2], cells);
        fetch<channels>(grid, table, cells);
        float* row = result + channels * start;
        for (int i = 0; i < size; ++i, row += channels) {
            blend<channels>(edges, table, cells, i, row);
            for (int c = 1; c < channels; c += 2) row[c] *= cells.sign[i];
        }
    }
}

}  // namespace

// `channels` floats a point (re, im, re, im, ...); there are 2, 4 or 8.
void read_points(const float* table, std::int64_t channels, std::int64_t centre, const float* points,
                 std::int64_t count, float* result) {
    const Grid grid{static_cast<std::int32_t>(centre)};
    if (channels == 2) read<2>(table, grid, points, count, result);
    if (channels == 4) read<4>(table, grid, points, count, result);
    if (channels == 8) read<8>(table, grid, points, count, result);
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
