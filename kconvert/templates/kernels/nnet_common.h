// What every kernel uses: number types, lanes, and the few helpers that stand in for data-dependent branches.
//
// A value of a tensor is nnet::lanes<T>. For a synthesis tool that is T itself. In the simulation (KCONVERT_CSIM) it is
// a pack of samples that share one control flow, so a kernel never branches on data: it selects.
#ifndef NNET_COMMON_H_
#define NNET_COMMON_H_

#include "ap_fixed.h"
#include "ap_int.h"

// A loop that starts every `interval` cycles and, when it waits for its next word, lets go of the words it is about to
// write: one that kept them could make another function wait for ever.
#define NNET_PRAGMA(text) _Pragma(#text)
#ifdef __VITIS_HLS__
#define NNET_STREAM_PIPELINE(interval) NNET_PRAGMA(HLS PIPELINE II=interval style=flp)
#else
#define NNET_STREAM_PIPELINE(interval) NNET_PRAGMA(HLS PIPELINE II=interval enable_flush)
#endif

#ifdef KCONVERT_CSIM
#include "lanes.h"

namespace nnet {
template <class T> using lanes = csim::pack<T>;
using csim::lookup;
using csim::max;
using csim::min;
using csim::select;
} // namespace nnet

#else

#define NNET_TRACE(index, size, tensor)

namespace nnet {
template <class T> using lanes = T;

template <class T> T select(bool condition, const T &if_true, const T &if_false) {
#pragma HLS INLINE
    return condition ? if_true : if_false;
}

template <class T> T max(const T &a, const T &b) {
#pragma HLS INLINE
    return a < b ? b : a;
}

template <class T> T min(const T &a, const T &b) {
#pragma HLS INLINE
    return b < a ? b : a;
}

// The entry of `table` at the raw bits of `index`.
template <class T, class INDEX> T lookup(const T table[], const INDEX &index) {
#pragma HLS INLINE
    return table[index.range(INDEX::width - 1, 0).to_uint()];
}
} // namespace nnet
#endif

namespace nnet {

// How a matrix is laid out in hardware.
enum strategy { latency, resource, unrolled };

// The smallest positive value of a type.
template <class T> T step() {
#pragma HLS INLINE
    T value = 0;
    value[0] = 1;
    return value;
}

// How one multiplication is done; a config struct may name another policy.
namespace product {
struct exact {
    template <class X, class W> static auto multiply(const X &x, const W &w) -> decltype(x * w) {
#pragma HLS INLINE
        return x * w;
    }
};

// Weights of one bit: 1 stands for plus one step of VALUE, 0 for minus one. The product is the one with that value, x or
// -x with another binary point; nothing is multiplied.
template <class VALUE> struct sign {
    template <class X, class W> static auto multiply(const X &x, const W &w) -> decltype(x * VALUE()) {
#pragma HLS INLINE
        typedef decltype(x * VALUE()) product_t;
        const product_t plus = x * step<VALUE>();
        const product_t minus = -plus;
        return select(w != 0, plus, minus);
    }
};

// The same weights, with inputs that are plus or minus one step of their type: 1 where the signs agree, else 0. The
// product is plus or minus one step; its sum follows from the number of ones (see summation).
template <class VALUE> struct xnor {
    template <class X, class W> static lanes<W> multiply(const X &x, const W &w) {
#pragma HLS INLINE
        return select(x < 0, W(~w), w);
    }
};
} // namespace product

} // namespace nnet

#endif
