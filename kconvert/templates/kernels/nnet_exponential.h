// Functions of inputs of any range: looked up within one octave, and shifted.
#ifndef NNET_EXPONENTIAL_H_
#define NNET_EXPONENTIAL_H_

#include "nnet_lookup.h"

namespace nnet {

// exp(x) = 2^k 2^f with k + f = x / log(2)
template <class CONFIG_T, class X, class Y, class... TABLES>
void exponential(const X x[], Y y[], const typename CONFIG_T::factor_t factor[], const TABLES *...tables) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        const lanes<typename CONFIG_T::exponent_t> exponent = x[i] * factor[0];
        const lanes<typename CONFIG_T::whole_t> k = exponent;
        const lanes<typename CONFIG_T::fraction_t> f = exponent; // drops the integer bits
        const auto octave = look_up<CONFIG_T>(f, tables...);
        const lanes<typename CONFIG_T::value_t> highest = octave * step<typename CONFIG_T::highest_t>();
        const lanes<typename CONFIG_T::bounded_t> bounded = typename CONFIG_T::whole_t(CONFIG_T::highest) - k;
        const lanes<typename CONFIG_T::shift_t> shift = bounded;
        const lanes<typename CONFIG_T::value_t> value = highest >> shift;
        y[i] = value;
    }
}

// x / (1 + |x|) = 1 - 1 / (1 + |x|), with the sign of x
template <class CONFIG_T, class X, class Y, class... TABLES>
void softsign(const X x[], Y y[], const TABLES *...tables) {
#pragma HLS PIPELINE II=1
    typedef typename CONFIG_T::magnitude_t magnitude_t;
    typedef typename CONFIG_T::count_t count_t;
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        const auto negative = x[i] < typename CONFIG_T::input_t(0);
        const lanes<magnitude_t> minus = -x[i], plus = x[i];
        lanes<magnitude_t> magnitude = select(negative, minus, plus) + magnitude_t(1);
        lanes<count_t> count = count_t(0);
        leading<CONFIG_T::steps - 1, 1>::to_top(magnitude, count);
        // between 1 and 2 now; the integer bit is dropped
        const lanes<typename CONFIG_T::fraction_t> f = magnitude * step<typename CONFIG_T::unit_t>();
        const lanes<typename CONFIG_T::table_t> octave = look_up<CONFIG_T>(f, tables...);
        const lanes<count_t> shift = count_t(magnitude_t::iwidth - 1) - count;
        const lanes<typename CONFIG_T::table_t> inverse = octave >> shift;
        const auto one = typename CONFIG_T::table_t(1);
        const Y below = inverse - one, above = one - inverse;
        y[i] = select(negative, below, above);
    }
}

} // namespace nnet

#endif
