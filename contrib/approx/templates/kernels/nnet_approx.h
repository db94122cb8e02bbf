// Layers whose products come from an approximate multiplier.
#ifndef NNET_APPROX_H_
#define NNET_APPROX_H_

#include "nnet_conv.h"
#include "nnet_dense.h"
#ifdef KCONVERT_CSIM
#include "nnet_approx_lanes.h"
#endif

namespace nnet {
namespace product {

// MULTIPLIER::multiply(x, y) is the product of two signed 8-bit codes, an input and a weight, in 16 bits. The binary point
// is where that of x * w is.
template <class MULTIPLIER> struct approximate {
    typedef MULTIPLIER multiplier;

    template <class X, class W> static auto multiply(const X &x, const W &w) -> decltype(x * w) {
#pragma HLS INLINE
#ifdef KCONVERT_CSIM
        return csim::multiply_codes<MULTIPLIER, decltype(x * w)>(x, w);
#else
        ap_int<8> input, weight;
        input.range(7, 0) = x.range(7, 0);
        weight.range(7, 0) = w.range(7, 0);
        const ap_int<16> code = MULTIPLIER::multiply(input.to_int(), weight.to_int());
        decltype(x * w) product;
        product.range(15, 0) = code.range(15, 0);
        return product;
#endif
    }
};

} // namespace product
} // namespace nnet

#endif
