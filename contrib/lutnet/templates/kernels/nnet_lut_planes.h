// Look-up tables in the simulation, on planes: one bit of each of 512 samples. Where the processor has AVX-512, tables become
// its instructions when they are first used; elsewhere they are read as data.
#ifndef NNET_LUT_PLANES_H_
#define NNET_LUT_PLANES_H_

#include "planes.h"

#if defined(__AVX512F__) && defined(__x86_64__) && defined(__unix__)
#define NNET_LUT_CODE
#include <sys/mman.h>
#endif

#include <cstdint>
#include <cstring>

namespace nnet {

using csim::plane;

// The same table with unused inputs added, up to six of them.
inline std::uint64_t of_six_inputs(std::uint64_t table, int inputs) {
    for (; inputs < 6; ++inputs) table |= table << (1 << inputs);
    return table;
}

// ---- tables as data ----

// a where s is 1, else b.
[[gnu::always_inline]] inline plane select_bits(const plane &s, const plane &a, const plane &b) { return b ^ (s & (a ^ b)); }

// The functions of two bits; bit a + 2b of the position is the answer to (a, b). Those at 0 and 15 are constants.
[[gnu::always_inline]] inline void functions_of(const plane &a, const plane &b, plane *f) {
    const plane both = a & b, only_a = a & ~b, only_b = b & ~a, differ = a ^ b;
    f[8] = both, f[2] = only_a, f[4] = only_b;
    f[10] = a, f[12] = b, f[6] = differ, f[14] = a | b;
    f[7] = ~both, f[13] = ~only_a, f[11] = ~only_b;
    f[5] = ~a, f[3] = ~b, f[9] = ~differ, f[1] = ~f[14];
}

// Entries `First` on of a table of six inputs, as a function of the first `Inputs` of them: one of two halves, chosen by the
// last of those; a function of two inputs is one of `f`.
template <int Inputs, int First>
[[gnu::always_inline]] inline plane part_of(std::uint64_t table, const plane *f, const plane *const (&x)[6]) {
    if constexpr (Inputs == 2) return f[table >> First & 15];
    else
        return select_bits(*x[Inputs - 1], part_of<Inputs - 1, First + (1 << (Inputs - 1))>(table, f, x),
                           part_of<Inputs - 1, First>(table, f, x));
}

template <class NODES> [[gnu::noinline]] void look_up_all(const NODES &nodes, const plane *x, plane *y) {
    plane f[16] = {};
    f[15] = ~f[0];
    for (long n = 0; n < nodes.units; ++n) {
        const plane *wires[6];
        for (int i = 0; i < 6; ++i) wires[i] = x + nodes.wire(n, i < nodes.inputs ? i : 0);
        functions_of(*wires[0], *wires[1], f);
        y[n] = part_of<6, 0>(of_six_inputs(nodes.table(n), nodes.inputs), f, wires);
    }
}

// ---- tables as instructions ----

#ifdef NNET_LUT_CODE

// Writes functions of planes, `void(const plane *x, plane *y)`, in the machine code of x86-64 with AVX-512. A table is a tree:
// functions of the first three inputs are one instruction, vpternlogq, and so is a choice between two halves by another
// input: 15 for six inputs. Inputs are in the registers zmm0 to zmm5.
class table_writer {
  public:
    static constexpr long node_bytes = 6 * 10 + 8 * 6 + 15 * 7 + 10;  // the most that a node takes
    static constexpr long end_bytes = 4;
    static constexpr long most_planes = 1l << 25;  // addresses have 32 bits

    explicit table_writer(std::uint8_t *to) : at(to) {}

    template <class NODES> void node(const NODES &nodes, long n) {
        for (int i = 0; i < nodes.inputs; ++i) move(0x6f, i, rdi, nodes.wire(n, i));
        next = 6;
        move(0x7f, tree(of_six_inputs(nodes.table(n), nodes.inputs), 6), rsi, n);
    }
    void end() { bytes(0xc5, 0xf8, 0x77, 0xc3); }  // vzeroupper; ret

  private:
    enum base { rsi = 6, rdi = 7 };
    std::uint8_t *at;
    int next = 6;  // the first register that is free

    // Writes the function that the low 2^inputs bits of a table are, and returns the register it is in.
    int tree(std::uint64_t table, int inputs) {
        if (inputs == 3) return leaf(int(table & 255));
        const int half = 1 << (inputs - 1);
        const std::uint64_t ones = (std::uint64_t(1) << half) - 1, low = table & ones, high = table >> half & ones;
        const int a = tree(low, inputs - 1);
        if (low == high) return a;
        if (low == (high ^ ones)) {
            logic(a, a, inputs - 1, 0x5a);  // exclusive or of the first and the third
        } else {
            const int b = tree(high, inputs - 1);
            logic(a, b, inputs - 1, 0xd8);  // the second where the third is 1, else the first
            next = b;
        }
        return a;
    }
    int leaf(int table) {
        const int to = next++;
        if (table != 0 && table != 255) registers(1, 0x6f, to, 0, 2);
        logic(to, 1, 0, table);  // entry 4 x2 + 2 x1 + x0 of the table, to being x2
        return to;
    }

    template <class... B> void bytes(B... values) { ((*at++ = std::uint8_t(values)), ...); }
    void prefix(int map, int reg, int second, int rm, int opcode) {
        const int far = (reg < 8 ? 0x80 : 0) | 0x40 | (rm < 8 ? 0x20 : 0) | 0x10;
        bytes(0x62, far | map, 0x85 | (~second & 15) << 3, 0x48, opcode);
    }
    void registers(int map, int opcode, int reg, int second, int rm) {
        prefix(map, reg, second, rm, opcode);
        bytes(0xc0 | (reg & 7) << 3 | (rm & 7));
    }
    void logic(int a, int b, int c, int table) {  // vpternlogq: a becomes entry 4a + 2b + c
        registers(3, 0x25, a, b, c);
        bytes(table);
    }
    void move(int opcode, int reg, base from, long index) {  // vmovdqa64, to or from a plane
        prefix(1, reg, 0, from, opcode);
        const std::uint32_t offset = std::uint32_t(index * long(sizeof(plane)));
        bytes(0x80 | (reg & 7) << 3 | from, offset, offset >> 8, offset >> 16, offset >> 24);
    }
};
#endif

// The look-up tables of a layer. NODES has `units`, `inputs`, `table(n)` and `wire(n, i)`.
template <class NODES> class lut_layer {
  public:
    explicit lut_layer(const NODES &nodes) : nodes(nodes) { write(); }
    lut_layer(const lut_layer &) = delete;
    lut_layer &operator=(const lut_layer &) = delete;

    void operator()(const plane *x, plane *y) const {
        if (code) reinterpret_cast<void (*)(const plane *, plane *)>(code)(x, y);
        else look_up_all(nodes, x, y);
    }

    const NODES nodes;

#ifdef NNET_LUT_CODE
    ~lut_layer() {
        if (code) munmap(code, size);
    }

  private:
    void write() {  // where the system does not allow it, tables stay data
        size = nodes.units * table_writer::node_bytes + table_writer::end_bytes;
        for (long n = 0; n < nodes.units; ++n)
            for (int i = 0; i < nodes.inputs; ++i)
                if (nodes.wire(n, i) >= table_writer::most_planes || n >= table_writer::most_planes) return;
        void *const pages = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED) return;
        table_writer writer(static_cast<std::uint8_t *>(pages));
        for (long n = 0; n < nodes.units; ++n) writer.node(nodes, n);
        writer.end();
        if (mprotect(pages, size, PROT_READ | PROT_EXEC) == 0) code = pages;
        else munmap(pages, size);
    }
#else
  private:
    void write() {}
#endif

    void *code = nullptr;
    unsigned long size = 0;
};

// ---- the kernel ----

template <class CONFIG_T> struct nodes_of {
    static constexpr long units = CONFIG_T::units;
    static constexpr int inputs = CONFIG_T::inputs;
    std::uint64_t table(long n) const { return CONFIG_T::tables()[n].raw; }
    long wire(long n, int i) const { return CONFIG_T::wires()[n * inputs + i].raw; }
};

template <class CONFIG_T> void luts(const plane x[], plane y[]) {
    static const lut_layer layer{nodes_of<CONFIG_T>()};
    layer(x, y);
}

// Of a pack of samples alone, where layers are called one pack at a time: a small part of each plane.
template <class CONFIG_T, class X, class Y> void luts(const csim::pack<X> x[], csim::pack<Y> y[]) {
    plane from[CONFIG_T::size], to[CONFIG_T::units];
    csim::to_planes(*reinterpret_cast<const csim::pack<X>(*)[CONFIG_T::size]>(x), 0, from);
    luts<CONFIG_T>(from, to);
    csim::from_planes(to, 0, *reinterpret_cast<csim::pack<Y>(*)[CONFIG_T::units]>(y));
}

} // namespace nnet

#endif
