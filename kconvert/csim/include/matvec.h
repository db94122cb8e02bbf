// Matrix times vector over lanes.
#ifndef CSIM_MATVEC_H
#define CSIM_MATVEC_H

#include "lanes.h"

namespace csim {

template <class CONFIG_T, class X, class A>
bool try_matvec(const X*, const typename CONFIG_T::weight_t*, const typename CONFIG_T::bias_t*, A*) {
    return false;
}

}  // namespace csim

#endif
