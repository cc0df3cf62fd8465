// Insertion of central slices into sums over a slice grid (fourier/slices.py): the adjoint of trilinear extraction.
//
// The grid is far larger than a cache, and a slice goes right through it. So images are first arranged (shifted,
// multiplied by their transfer functions, put in rows along ky, and the rows cut where they leave a block of the grid)
// and then the blocks are filled one after another, each by all images. Slabs of blocks share nodes only with the next
// slab: even ones can be filled side by side, then odd ones, and every node's additions come in one order.
#include <algorithm>
#include <cmath>
#include <complex>
#include <vector>

#include "kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

namespace {

constexpr int SIDE = 5;               // a block has 2^SIDE nodes along y and x, and along z 2^DEPTH,
constexpr int DEPTH = 4, LITTLE = 2;  // or 2^LITTLE in a small grid, whose slabs would be too few to share among threads
constexpr std::int32_t SMALL = 64;    // a grid is small if its centre is below this
constexpr int LANES = 16;             // points of a row whose nodes are found together

struct Layout {
    std::int32_t centre, depth, rows, columns;  // of the grid; rows and columns of blocks
    explicit Layout(const InsertedSlices& slices)
        : centre(static_cast<std::int32_t>(slices.centre)),
          depth(centre < SMALL ? LITTLE : DEPTH),
          rows((2 * centre >> SIDE) + 1),
          columns((centre >> SIDE) + 1) {}
    std::int32_t slabs() const { return (2 * centre >> depth) + 1; }
    std::int32_t blocks() const { return slabs() * rows * columns; }
};

// The coefficients with one kx, ky rising: `first` is their place among all rows, which follow one another.
struct Row {
    std::int32_t lowest, count, first;
};

std::vector<Row> rows_of(std::int64_t limit) {
    std::vector<Row> rows;
    std::int32_t first = 0;
    for (std::int64_t kx = 0; kx <= limit; ++kx) {
        auto highest = static_cast<std::int32_t>(std::sqrt(static_cast<double>(limit * limit - kx * kx)));
        const std::int32_t lowest = kx == 0 ? 1 : -highest;
        rows.push_back({lowest, highest - lowest + 1, first});
        first += rows.back().count;
    }
    return rows;
}

// A piece of a row inside one block.
struct Piece {
    std::uint16_t image, row, first, count;  // the image's place in its part; the sign is the count's highest bit
};
static_assert(sizeof(Piece) == 8);
constexpr std::uint16_t OPPOSITE = 0x8000;

// Powers of exp(2 pi i turn), from `lowest` on.
void powers(double turn, std::int32_t lowest, std::int32_t count, std::vector<float>& re, std::vector<float>& im) {
    const double angle = 2 * 3.14159265358979323846 * turn;
    const std::complex<double> step = std::polar(1.0, angle);
    std::complex<double> power = std::polar(1.0, angle * lowest);
    for (std::int32_t j = 0; j < count; ++j, power *= step)
        re[j] = static_cast<float>(power.real()), im[j] = static_cast<float>(power.imag());
}

// One row of an image as (re, im, weight) side by side.
void arrange_row(const InsertedSlices& slices, std::int64_t image, const Row& row, const float* phase_re,
                 const float* phase_im, float turn_re, float turn_im, float* out) {
    const float* values = slices.values + 2 * image * slices.coefficients;
    const float* weights = slices.weights + image * slices.coefficients;
    const std::int32_t* order = slices.order + row.first;
    if (slices.shifts == nullptr) {
        for (std::int32_t j = 0; j < row.count; ++j) {
            const std::int32_t from = order[j];
            out[3 * j] = values[2 * from], out[3 * j + 1] = values[2 * from + 1], out[3 * j + 2] = weights[from];
        }
        return;
    }
    for (std::int32_t j = 0; j < row.count; ++j) {
        const std::int32_t from = order[j];
        const float transfer = weights[from];
        const float re = transfer * (turn_re * phase_re[j] - turn_im * phase_im[j]);
        const float im = transfer * (turn_re * phase_im[j] + turn_im * phase_re[j]);
        out[3 * j] = values[2 * from] * re - values[2 * from + 1] * im;
        out[3 * j + 1] = values[2 * from] * im + values[2 * from + 1] * re;
        out[3 * j + 2] = transfer * transfer;
    }
}

// The block that each point of a row lies in, doubled, plus one for points inserted at their opposite; -1 outside.
void find_blocks(const Layout& layout, const float* frame, std::int32_t kx, const Row& row, std::int32_t* block) {
    const auto edge = static_cast<float>(layout.centre);
    const auto column = static_cast<float>(kx);
    for (std::int32_t j = 0; j < row.count; ++j) {
        const auto ky = static_cast<float>(row.lowest + j);
        float x = frame[0] * column + frame[3] * ky;
        float y = frame[1] * column + frame[4] * ky;
        float z = frame[2] * column + frame[5] * ky;
        const float sign = x < 0.f ? -1.f : 1.f;
        x *= sign, y *= sign, z *= sign;
        const bool inside = (x < edge) & (y < edge) & (y > -edge) & (z < edge) & (z > -edge);
        // Beyond -centre all are positive, where truncation is the floor.
        const auto ix = static_cast<std::int32_t>(x), iy = static_cast<std::int32_t>(y + edge),
                   iz = static_cast<std::int32_t>(z + edge);
        const std::int32_t found = ((iz >> layout.depth) * layout.rows + (iy >> SIDE)) * layout.columns + (ix >> SIDE);
        block[j] = inside ? 2 * found + (sign < 0.f) : -1;
    }
}

// The nodes of one block: [low, high] of the lowest node of a point, on each axis, counted as coordinates.
struct Range {
    float low[3], high[3];
};

Range range_of(const Layout& layout, std::int32_t slab, std::int32_t row, std::int32_t column) {
    const std::int32_t centre = layout.centre;
    const std::int32_t first[3] = {column << SIDE, (row << SIDE) - centre, (slab << layout.depth) - centre};
    const std::int32_t length[3] = {1 << SIDE, 1 << SIDE, 1 << layout.depth};
    Range range;
    for (int axis = 0; axis < 3; ++axis) {
        range.low[axis] = static_cast<float>(first[axis]);
        range.high[axis] = static_cast<float>(std::min(first[axis] + length[axis], centre) - 1);
    }
    return range;
}

inline float clamped_floor(float value, float low, float high) {
    return std::min(std::max(std::floor(value), low), high);
}

// Add the numbers of one point, times its weights along x, to two neighbouring nodes on each of four edges.
inline void add_point(float* node, const std::int64_t (&edge)[4], const float* point, float sign, float along,
                      const float (&weight)[4][LANES], int lane) {
    const float near = 1.f - along;
#if defined(__AVX512VL__)
    const __mmask8 six = 0x3f;
    const __m256i twice = _mm256_setr_epi32(0, 1, 2, 0, 1, 2, 2, 2);
    const __m256 numbers = _mm256_permutexvar_ps(twice, _mm256_castps128_ps256(_mm_maskz_loadu_ps(0x7, point)));
    __m256 shares = _mm256_mask_blend_ps(0x38, _mm256_set1_ps(near), _mm256_set1_ps(along));
    shares = _mm256_mask_mul_ps(shares, 0x12, shares, _mm256_set1_ps(sign));
    const __m256 pair = _mm256_mul_ps(numbers, shares);
    for (int i = 0; i < 4; ++i) {
        float* at = node + edge[i];
        const __m256 sum = _mm256_fmadd_ps(pair, _mm256_set1_ps(weight[i][lane]), _mm256_maskz_loadu_ps(six, at));
        _mm256_mask_storeu_ps(at, six, sum);
    }
#else
    const float numbers[3] = {point[0], sign * point[1], point[2]};
    const float pair[6] = {near * numbers[0],  near * numbers[1],  near * numbers[2],
                           along * numbers[0], along * numbers[1], along * numbers[2]};
    for (int i = 0; i < 4; ++i)
        for (int c = 0; c < 6; ++c) node[edge[i] + c] += pair[c] * weight[i][lane];
#endif
}

}  // namespace

// Blocks of nodes in the grid, one slab of them, and the most pieces that the rows of one image can be cut into.
void insertion_sizes(std::int64_t centre, std::int64_t limit, std::int64_t* sizes) {
    InsertedSlices slices{};
    slices.centre = centre;
    const Layout layout(slices);
    sizes[0] = layout.blocks(), sizes[1] = layout.slabs();
    // A row is one line, or two where it is turned back at x = 0; a line crosses each plane between blocks once.
    sizes[2] = (limit + 1) * (2 * (layout.slabs() + layout.rows + layout.columns) + 2);
}

// Arrange one part of the images.
void arrange_slices(const InsertedSlices& slices, std::int64_t part) {
    const Layout layout(slices);
    const auto rows = rows_of(slices.limit);
    const std::int64_t begin = part * slices.images_a_part, end = std::min(begin + slices.images_a_part, slices.images);
    const auto longest = static_cast<std::int32_t>(2 * slices.limit + 1);
    std::vector<float> phase_re(longest), phase_im(longest), turn_re(slices.limit + 1), turn_im(slices.limit + 1);
    std::vector<std::int32_t> block(longest);
    std::vector<Piece> pieces;
    std::vector<std::int32_t> place;
    std::int32_t* offsets = slices.offsets + part * (layout.blocks() + 1);
    std::fill(offsets, offsets + layout.blocks() + 1, 0);
    for (std::int64_t image = begin; image < end; ++image) {
        if (slices.shifts != nullptr) {
            powers(slices.shifts[2 * image], 0, static_cast<std::int32_t>(slices.limit + 1), turn_re, turn_im);
            powers(slices.shifts[2 * image + 1], -static_cast<std::int32_t>(slices.limit), longest, phase_re, phase_im);
        }
        for (std::int32_t kx = 0; kx <= slices.limit; ++kx) {
            const Row& row = rows[kx];
            const std::int64_t skipped = row.lowest + slices.limit;
            arrange_row(slices, image, row, phase_re.data() + skipped, phase_im.data() + skipped, turn_re[kx],
                        turn_im[kx], slices.points + 3 * (image * slices.coefficients + row.first));
            find_blocks(layout, slices.frames + 6 * image, kx, row, block.data());
            for (std::int32_t start = 0, j = 1; j <= row.count; ++j) {
                if (j < row.count && block[j] == block[start]) continue;
                if (block[start] >= 0) {
                    const auto count = static_cast<std::uint16_t>((j - start) | (block[start] & 1 ? OPPOSITE : 0));
                    pieces.push_back({static_cast<std::uint16_t>(image - begin), static_cast<std::uint16_t>(kx),
                                      static_cast<std::uint16_t>(start), count});
                    place.push_back(block[start] >> 1);
                    ++offsets[(block[start] >> 1) + 1];
                }
                start = j;
            }
        }
    }
    for (std::int32_t b = 0; b < layout.blocks(); ++b) offsets[b + 1] += offsets[b];
    std::vector<std::int32_t> next(offsets, offsets + layout.blocks());
    auto* sorted = reinterpret_cast<Piece*>(slices.pieces) + part * slices.pieces_a_part;
    for (std::size_t i = 0; i < pieces.size(); ++i) sorted[next[place[i]]++] = pieces[i];
}

// Add what was arranged to the nodes of one slab of blocks, and to those of the plane above it.
void fill_slab(const InsertedSlices& slices, std::int64_t slab, float* sums) {
    const Layout layout(slices);
    const auto rows = rows_of(slices.limit);
    const std::int64_t width = slices.centre + 1, plane = width * (2 * slices.centre + 1);
    const std::int64_t edge[4] = {0, 3 * width, 3 * plane, 3 * (plane + width)};
    const std::int64_t parts = (slices.images + slices.images_a_part - 1) / slices.images_a_part;
    alignas(64) float along[LANES], weight[4][LANES];
    alignas(64) std::int32_t node[LANES];
    const auto origin = static_cast<std::int32_t>(slices.centre * (plane + width));
    for (std::int32_t index = 0; index < layout.rows * layout.columns; ++index) {
        const Range range = range_of(layout, static_cast<std::int32_t>(slab), index / layout.columns, index % layout.columns);
        const std::int64_t block = slab * layout.rows * layout.columns + index;
        for (std::int64_t part = 0; part < parts; ++part) {
            const std::int32_t* offsets = slices.offsets + part * (layout.blocks() + 1) + block;
            const auto* pieces = reinterpret_cast<const Piece*>(slices.pieces) + part * slices.pieces_a_part;
            for (std::int32_t p = offsets[0]; p < offsets[1]; ++p) {
                const Piece piece = pieces[p];
                const std::int64_t image = part * slices.images_a_part + piece.image;
                const Row& row = rows[piece.row];
                const float sign = piece.count & OPPOSITE ? -1.f : 1.f;
                const std::int32_t count = piece.count & ~OPPOSITE;
                const float* points = slices.points + 3 * (image * slices.coefficients + row.first + piece.first);
                if (p + 4 < offsets[1]) {
                    const Piece ahead = pieces[p + 4];
                    const std::int64_t later = part * slices.images_a_part + ahead.image;
                    __builtin_prefetch(slices.points +
                                       3 * (later * slices.coefficients + rows[ahead.row].first + ahead.first));
                }
                const float* frame = slices.frames + 6 * image;
                const float turned[3] = {sign * frame[3], sign * frame[4], sign * frame[5]};
                const auto kx = sign * static_cast<float>(piece.row);
                for (std::int32_t start = 0; start < count; start += LANES, points += 3 * LANES) {
                    const auto lowest = static_cast<float>(row.lowest + piece.first + start);
                    for (int j = 0; j < LANES; ++j) {
                        const float ky = lowest + static_cast<float>(j);
                        const float x = frame[0] * kx + turned[0] * ky, y = frame[1] * kx + turned[1] * ky,
                                    z = frame[2] * kx + turned[2] * ky;
                        // Rounding must not move a point into the next block.
                        const float ix = clamped_floor(x, range.low[0], range.high[0]),
                                    iy = clamped_floor(y, range.low[1], range.high[1]),
                                    iz = clamped_floor(z, range.low[2], range.high[2]);
                        const float fy = y - iy, fz = z - iz;
                        along[j] = x - ix;
                        node[j] = origin + static_cast<std::int32_t>(iz) * static_cast<std::int32_t>(plane) +
                                  static_cast<std::int32_t>(iy) * static_cast<std::int32_t>(width) +
                                  static_cast<std::int32_t>(ix);
                        weight[0][j] = (1.f - fy) * (1.f - fz), weight[1][j] = fy * (1.f - fz);
                        weight[2][j] = (1.f - fy) * fz, weight[3][j] = fy * fz;
                    }
                    const int size = std::min<std::int32_t>(LANES, count - start);
                    for (int j = 0; j < size; ++j)
                        add_point(sums + 3 * static_cast<std::int64_t>(node[j]), edge, points + 3 * j, sign, along[j],
                                  weight, j);
                }
            }
        }
    }
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
