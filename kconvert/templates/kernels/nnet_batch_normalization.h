// y = x * scale + bias, per channel; neighbouring channels are `inner` elements apart.
#ifndef NNET_BATCH_NORMALIZATION_H_
#define NNET_BATCH_NORMALIZATION_H_

#include "nnet_common.h"

namespace nnet {

template <class CONFIG_T, class X, class Y>
void batch_normalization(const X x[], Y y[], const typename CONFIG_T::scale_t scale[],
                         const typename CONFIG_T::bias_t bias[]) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        const unsigned channel = i / CONFIG_T::inner % CONFIG_T::channels;
        y[i] = CONFIG_T::product::multiply(x[i], scale[channel]) + bias[channel];
    }
}

} // namespace nnet

#endif
