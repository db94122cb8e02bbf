// Up-sampling of an image [in_height][in_width][channels] by whole factors.
#ifndef NNET_UPSAMPLING_H_
#define NNET_UPSAMPLING_H_

#include "nnet_mean.h"

namespace nnet {

// Pixels of the input on both sides of output `i` along an axis, repeated at the edges, and the weight of the second out
// of 2 * factor: the output lies at (2 i + 1 - factor) / (2 factor).
struct neighbours {
    unsigned first, second, weight;

    neighbours(unsigned i, unsigned factor, unsigned pixels) {
#pragma HLS INLINE
        const unsigned behind = 2 * i + 1 + factor; // one pixel further on
        const unsigned next = behind / (2 * factor);
        first = next == 0 ? 0 : next - 1;
        second = next < pixels ? next : pixels - 1;
        weight = behind % (2 * factor);
    }
};

// y = the weighted sum of the four pixels around it, divided by the sum of their weights
template <class CONFIG_T, class X, class Y>
void bilinear(const X x[], Y y[], const typename CONFIG_T::reciprocal_t reciprocal[]) {
    typedef typename CONFIG_T::weight_t weight_t;
    const unsigned out_height = CONFIG_T::in_height * CONFIG_T::factor_height;
    const unsigned out_width = CONFIG_T::in_width * CONFIG_T::factor_width;
Rows:
    for (unsigned row = 0; row < out_height; row++) {
    Columns:
        for (unsigned column = 0; column < out_width; column++) {
#pragma HLS PIPELINE II=1
            const neighbours rows(row, CONFIG_T::factor_height, CONFIG_T::in_height);
            const neighbours columns(column, CONFIG_T::factor_width, CONFIG_T::in_width);
            const unsigned row_of[2] = {rows.first, rows.second};
            const unsigned column_of[2] = {columns.first, columns.second};
            const unsigned row_weight[2] = {2 * CONFIG_T::factor_height - rows.weight, rows.weight};
            const unsigned column_weight[2] = {2 * CONFIG_T::factor_width - columns.weight, columns.weight};
        Channels:
            for (unsigned c = 0; c < CONFIG_T::channels; c++) {
#pragma HLS UNROLL
                lanes<typename CONFIG_T::accum_t> accum = typename CONFIG_T::accum_t(0);
            Pixels:
                for (unsigned k = 0; k < 4; k++) {
#pragma HLS UNROLL
                    const unsigned pixel = row_of[k / 2] * CONFIG_T::in_width + column_of[k % 2];
                    const weight_t weight = row_weight[k / 2] * column_weight[k % 2];
                    accum += x[pixel * CONFIG_T::channels + c] * weight;
                }
                y[(row * out_width + column) * CONFIG_T::channels + c] = mean<CONFIG_T>(accum, reciprocal[0]);
            }
        }
    }
}

} // namespace nnet

#endif
