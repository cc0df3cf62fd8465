// Images spread over the orientations that they may have, summed for each slice of a bank.
#include "kernels.h"

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

// Sum the coefficients first ... last - 1 of all images.
void spread_images(const SpreadImages& spread, std::int64_t first, std::int64_t last) {
    const std::int64_t m = spread.coefficients;
    for (std::int64_t image = 0; image < spread.images; ++image) {
        const float *data = spread.data + image * 2 * m, *power = spread.power + image * m;
        for (std::int64_t i = image * spread.candidates; i < (image + 1) * spread.candidates; ++i) {
            const bool half_turn = spread.orientation[i] >= spread.slices;
            const std::int64_t slice = spread.orientation[i] - (half_turn ? spread.slices : 0);
            const float share = spread.share[i], turned = half_turn ? -share : share;
            const float *cosine = spread.cosines + spread.shift[i] * m, *sine = spread.sines + spread.shift[i] * m;
            float *__restrict__ values = spread.values + slice * 2 * m, *__restrict__ weights = spread.weights + slice * m;
            for (std::int64_t k = first; k < last; ++k) {
                values[2 * k] += share * (data[2 * k] * cosine[k] - data[2 * k + 1] * sine[k]);
                values[2 * k + 1] += turned * (data[2 * k] * sine[k] + data[2 * k + 1] * cosine[k]);
                weights[k] += share * power[k];
            }
        }
    }
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
