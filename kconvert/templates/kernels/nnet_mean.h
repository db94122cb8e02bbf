// Exact division of a sum by a number of elements.
#ifndef NNET_MEAN_H_
#define NNET_MEAN_H_

#include "nnet_common.h"

namespace nnet {

// sum * (1 / count) rounded down. `reciprocal` is rounded up and precise enough for the quotient of a sum >= 0 to be
// exact; a negative sum goes through its complement, since floor(-a / n) = ~floor((a - 1) / n) in units of the last bit.
template <class CONFIG_T, class A>
lanes<typename CONFIG_T::quotient_t> mean(const A &sum, const typename CONFIG_T::reciprocal_t &reciprocal) {
#pragma HLS INLINE
    typedef lanes<typename CONFIG_T::quotient_t> quotient;
    const quotient wide = sum;
    const auto negative = wide < typename CONFIG_T::quotient_t(0);
    const quotient magnitude = select(negative, quotient(~wide), wide);
    const quotient floored = magnitude * reciprocal;
    return select(negative, quotient(~floored), floored);
}

} // namespace nnet

#endif
