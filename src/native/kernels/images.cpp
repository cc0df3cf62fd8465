// From images to band vectors: normalisation on the background, and picking coefficients from a transform.
#include <cmath>
#include <vector>

#include "kernels.h"

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

namespace {

constexpr int LANES = 32;

// Running sums of differences from a value and of their squares, in as many lanes as make the compiler use vectors.
struct Moments {
    float sum[LANES] = {}, square[LANES] = {};

    void add(const float* values, std::int64_t count, float origin) {
        std::int64_t i = 0;
        for (; i + LANES <= count; i += LANES) {
            for (int lane = 0; lane < LANES; ++lane) {
                const float difference = values[i + lane] - origin;
                sum[lane] += difference;
                square[lane] += difference * difference;
            }
        }
        for (; i < count; ++i) {
            const float difference = values[i] - origin;
            sum[0] += difference, square[0] += difference * difference;
        }
    }

    double total() const {
        double result = 0;
        for (const float one : sum) result += one;
        return result;
    }

    double squares() const {
        double result = 0;
        for (const float one : square) result += one;
        return result;
    }
};

double deviation(double sum, double squares, double count) {
    if (count < 2) return NAN;
    return std::sqrt(std::fmax(squares - sum * sum / count, 0.0) / (count - 1));
}

}  // namespace

// Images of box x box pixels become 0 in the mean and 1 in the deviation of their background, in place: of the pixels
// further from the centre than a radius.
void normalise_images(float* images, std::int64_t count, std::int64_t box, double radius, std::int64_t invert) {
    // Row y has its background in the columns below first[y] and from last[y] on.
    std::vector<std::int64_t> first(box), last(box);
    std::int64_t outside = 0;
    const std::int64_t centre = box / 2;
    for (std::int64_t y = 0; y < box; ++y) {
        const auto distant = [&](std::int64_t x) {
            const auto square = static_cast<double>((x - centre) * (x - centre) + (y - centre) * (y - centre));
            return square > radius * radius;
        };
        first[y] = 0, last[y] = box;
        while (first[y] < box && distant(first[y])) ++first[y];
        while (last[y] > first[y] && distant(last[y] - 1)) --last[y];
        outside += first[y] + box - last[y];
    }
    const auto pixels = static_cast<double>(box * box);
    for (std::int64_t i = 0; i < count; ++i) {
        float* image = images + i * box * box;
        // Near the mean, differences keep their digits however far from zero the pixels are.
        const float near = image[0];
        Moments background;
        for (std::int64_t y = 0; y < box; ++y) {
            background.add(image + y * box, first[y], near);
            background.add(image + y * box + last[y], box - last[y], near);
        }
        const auto mean = static_cast<float>(near + background.total() / static_cast<double>(outside));
        Moments about_mean, within;
        for (std::int64_t y = 0; y < box; ++y) {
            about_mean.add(image + y * box, first[y], mean);
            about_mean.add(image + y * box + last[y], box - last[y], mean);
            within.add(image + y * box + first[y], last[y] - first[y], mean);
        }
        double spread = deviation(about_mean.total(), about_mean.squares(), static_cast<double>(outside));
        const double whole = deviation(about_mean.total() + within.total(), about_mean.squares() + within.squares(), pixels);
        // Where the background is empty, as in noiseless simulations, the whole image sets the scale.
        if (!(spread > 1e-4 * whole)) spread = whole;
        const auto scale = static_cast<float>(spread > 0 ? (invert ? -1.0 : 1.0) / spread : 0.0);
        for (std::int64_t j = 0; j < box * box; ++j) image[j] = (image[j] - mean) * scale;
    }
}

// Coefficients of complex transforms at places of each, times a complex factor.
void pick_coefficients(const float* spectra, std::int64_t count, std::int64_t stride, const std::int32_t* place,
                       const float* factor, std::int64_t coefficients, float* result) {
    for (std::int64_t i = 0; i < count; ++i) {
        const float* spectrum = spectra + 2 * i * stride;
        float* out = result + 2 * i * coefficients;
        for (std::int64_t j = 0; j < coefficients; ++j) {
            const float re = spectrum[2 * place[j]], im = spectrum[2 * place[j] + 1];
            out[2 * j] = re * factor[2 * j] - im * factor[2 * j + 1];
            out[2 * j + 1] = re * factor[2 * j + 1] + im * factor[2 * j];
        }
    }
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
