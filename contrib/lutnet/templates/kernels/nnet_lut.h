// Layers of look-up tables, wiring, and counting.
#ifndef NNET_LUT_H_
#define NNET_LUT_H_

#include "nnet_common.h"
#ifdef KCONVERT_CSIM
#include "nnet_lut_planes.h"
#endif

namespace nnet {

#ifndef KCONVERT_CSIM
// The address that bits make, the first one its lowest bit.
template <class B> unsigned address(const B &b) {
#pragma HLS INLINE
    return b.to_uint();
}
template <class B, class... MORE> unsigned address(const B &b, const MORE &...more) {
#pragma HLS INLINE
    return b.to_uint() | address(more...) << 1;
}

// y[n] = bit a of table n, a the address that the inputs wired to node n make. For synthesis the tables are functions
// and the wires are in their calls.
template <class CONFIG_T, class X, class Y> void luts(const X x[], Y y[]) {
#pragma HLS PIPELINE II=1
    CONFIG_T::nodes::connect(x, y);
}
#endif

template <unsigned SIZE, class X, class Y, class INDEX> void wires(const X x[], Y y[], const INDEX index[]) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < SIZE; i++) {
#pragma HLS UNROLL
        y[i] = x[index[i].to_uint()];
    }
}

template <class CONFIG_T, class X> lanes<typename CONFIG_T::accum_t> sum_of_group(const X x[]) {
#pragma HLS INLINE
    lanes<typename CONFIG_T::accum_t> sum = typename CONFIG_T::accum_t(0);
Elements:
    for (unsigned i = 0; i < CONFIG_T::count; i++) {
#pragma HLS UNROLL
        sum += x[i * CONFIG_T::element_step];
    }
    return sum;
}

// The first element of sum number `n`, those of one position after another.
template <class CONFIG_T> unsigned group_start(unsigned n) {
#pragma HLS INLINE
    return n / CONFIG_T::groups * CONFIG_T::groups * CONFIG_T::count + n % CONFIG_T::groups * CONFIG_T::group_step;
}

template <class CONFIG_T, class X, class Y> void group_sum(const X x[], Y y[]) {
#pragma HLS PIPELINE II=1
Groups:
    for (unsigned n = 0; n < CONFIG_T::positions * CONFIG_T::groups; n++) {
#pragma HLS UNROLL
        y[n] = sum_of_group<CONFIG_T>(x + group_start<CONFIG_T>(n));
    }
}

// The same, each sum replaced by the level at its bits.
template <class CONFIG_T, class X, class Y, class LEVEL> void group_sum(const X x[], Y y[], const LEVEL level[]) {
#pragma HLS PIPELINE II=1
Groups:
    for (unsigned n = 0; n < CONFIG_T::positions * CONFIG_T::groups; n++) {
#pragma HLS UNROLL
        y[n] = lookup(level, sum_of_group<CONFIG_T>(x + group_start<CONFIG_T>(n)));
    }
}

} // namespace nnet

#endif
