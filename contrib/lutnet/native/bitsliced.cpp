// A network of look-up tables on packed bits. Tables and wires are data, so one compilation serves every network.
#include "nnet_lut_planes.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <new>
#include <thread>
#include <vector>

namespace {

using csim::plane;
typedef std::uint64_t lanes8 __attribute__((vector_size(64)));
typedef std::uint64_t word __attribute__((may_alias));
constexpr long samples_of_plane = 8 * sizeof(plane);
constexpr long words_of_plane = samples_of_plane / 64;

#if defined(__GFNI__) && defined(__AVX512VBMI__)
#define BYTE_PERMUTATIONS
#endif

#ifdef BYTE_PERMUTATIONS

// Exchanges rows and columns of each 8 x 8 bytes; the rows from the last to the first if `Turned`.
template <bool Turned> inline __m512i transposed_bytes(const __m512i &v) {
    alignas(64) static constexpr auto index = [] {
        std::array<std::uint8_t, 64> at{};
        for (int i = 0; i < 64; ++i) at[i] = std::uint8_t((Turned ? 7 - i % 8 : i % 8) * 8 + i / 8);
        return at;
    }();
    return _mm512_permutexvar_epi8(_mm512_load_si512(index.data()), v);
}

// Bit j of word i, which is from[i * step], becomes bit i of word j: within bytes by products with the unit matrix, which read
// rows from the last, then between the words of eight registers, then within their words.
inline void transpose(const word *from, long step, std::uint64_t (&block)[64]) {
    const __m512i unit = _mm512_set1_epi64(0x8040201008040201), eight = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i index = _mm512_mullo_epi64(eight, _mm512_set1_epi64(step));
    const __m512i low = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0), high = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    __m512i v[8], mixed[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        const __m512i rows = _mm512_i64gather_epi64(index, from + 8 * i * step, 8);
        v[i] = _mm512_gf2p8affine_epi64_epi8(unit, transposed_bytes<true>(rows), 0);
    }
#pragma GCC unroll 3
    for (int round = 0; round < 3; ++round) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            mixed[2 * i] = _mm512_permutex2var_epi64(v[i], low, v[i + 4]);
            mixed[2 * i + 1] = _mm512_permutex2var_epi64(v[i], high, v[i + 4]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) v[i] = mixed[i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) _mm512_storeu_si512(block + 8 * i, transposed_bytes<false>(v[i]));
}

#else

template <int... I> [[gnu::always_inline]] inline lanes8 shuffled(const lanes8 &v) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(v, v, I...);
#else
    return __builtin_shuffle(v, lanes8{I...});
#endif
}

// Exchanges blocks of `Distance` bits between rows that are `Distance` apart: in two vectors, or in one.
template <int Distance> [[gnu::always_inline]] inline void swap_rows(lanes8 (&v)[8], std::uint64_t mask) {
    constexpr int step = Distance / 8;
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        if (i & step) continue;
        const lanes8 t = (v[i] >> Distance ^ v[i + step]) & mask;
        v[i + step] ^= t;
        v[i] ^= t << Distance;
    }
}
template <int Distance, int... Partner> [[gnu::always_inline]] inline void swap_lanes(lanes8 (&v)[8], std::uint64_t mask) {
    const lanes8 kept = lanes8{(Partner & Distance ? mask : ~mask)...};  // the partner of a lower lane is a higher one
    const lanes8 up = lanes8{(Partner & Distance ? std::uint64_t(Distance) : 0)...};
    const lanes8 down = lanes8{(Partner & Distance ? 0 : std::uint64_t(Distance))...};
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) v[i] = (v[i] & kept) | (shuffled<Partner...>(v[i]) << up >> down & ~kept);
}

// Bit j of word i, which is from[i * step], becomes bit i of word j: blocks of half the size change places, down to single
// bits.
inline void transpose(const word *from, long step, std::uint64_t (&block)[64]) {
    lanes8 v[8];
    for (int i = 0; i < 64; ++i) block[i] = from[i * step];
    std::memcpy(v, block, sizeof(block));
    swap_rows<32>(v, 0x00000000ffffffffu);
    swap_rows<16>(v, 0x0000ffff0000ffffu);
    swap_rows<8>(v, 0x00ff00ff00ff00ffu);
    swap_lanes<4, 4, 5, 6, 7, 0, 1, 2, 3>(v, 0x0f0f0f0f0f0f0f0fu);
    swap_lanes<2, 2, 3, 0, 1, 6, 7, 4, 5>(v, 0x3333333333333333u);
    swap_lanes<1, 1, 0, 3, 2, 5, 4, 7, 6>(v, 0x5555555555555555u);
    std::memcpy(block, v, sizeof(block));
}
#endif

struct layer_data {
    long units;
    int inputs;
    const std::uint64_t *tables;  // of each unit
    const std::uint32_t *wires;   // `inputs` for each unit

    std::uint64_t table(long n) const { return tables[n]; }
    long wire(long n, int i) const { return wires[n * inputs + i]; }
};

struct network {
    long inputs;                   // bits of a sample
    long groups;                   // 0: the answers are bits
    const std::uint64_t *members;  // [groups, words of an answer]: the units of a group
    std::vector<std::unique_ptr<nnet::lut_layer<layer_data>>> layers;

    long outputs() const { return layers.back()->nodes.units; }
};

constexpr long words_for(long bits) { return (bits + 63) / 64; }
constexpr long most(long limit, long n) { return n < limit ? n : limit; }

// Samples [count, words] to planes [64 * words].
void to_planes(const word *samples, long count, long words, plane *x) {
    for (long w = 0; w < words; ++w) {
        for (long group = 0; 64 * group < count; ++group) {
            const word *from = samples + 64 * group * words + w;
            const long rows = most(64, count - 64 * group);
            std::uint64_t block[64];
            if (rows < 64) {
                word some[64] = {};
                for (long s = 0; s < rows; ++s) some[s] = from[s * words];
                transpose(some, 1, block);
            } else {
                transpose(from, words, block);
            }
            // the next samples, in the order of memory, which processors do not foresee by themselves
            const word *const next = samples + samples_of_plane * words + 64 * (words_of_plane * w + group);
            for (long s = 0; s < 64; s += 8) __builtin_prefetch(next + s);
            for (long i = 0; i < 64; ++i) reinterpret_cast<word *>(x + 64 * w + i)[group] = block[i];
        }
    }
}

void to_samples(const plane *y, long count, long words, word *samples) {
    for (long group = 0; 64 * group < count; ++group) {
        const long rows = most(64, count - 64 * group);
        for (long w = 0; w < words; ++w) {
            std::uint64_t block[64];
            transpose(reinterpret_cast<const word *>(y + 64 * w) + group, words_of_plane, block);
            for (long s = 0; s < rows; ++s) samples[(64 * group + s) * words + w] = block[s];
        }
    }
}

// The ones of each group of bits of a sample.
template <bool OneWord>
[[gnu::always_inline]] inline void count_ones(const std::uint64_t *answer, long words, const std::uint64_t *members, long groups,
                                              std::uint32_t *counts) {
    for (long g = 0; g < groups; ++g) {
        int ones = 0;
        for (long w = 0; w < (OneWord ? 1 : words); ++w) ones += __builtin_popcountll(answer[w] & members[g * words + w]);
        counts[g] = std::uint32_t(ones);
    }
}

// Bytes of 0 and 1, [count, bits], to samples [count, words].
void pack_bytes(const std::uint8_t *bytes, long count, long bits, word *samples) {
    const long words = words_for(bits), whole = bits / csim::lanes * csim::lanes;
    for (long s = 0; s < count; ++s, bytes += bits) {
        char *const to = reinterpret_cast<char *>(samples + s * words);
        samples[(s + 1) * words - 1] = 0;  // its last bytes may lie behind the bits
        const auto put = [&](long i, const csim::lanes_of<std::uint8_t> &some) {
            const std::uint16_t found = csim::gather_bits(some);
            std::memcpy(to + i / 8, &found, sizeof(found));
        };
        csim::lanes_of<std::uint8_t> some;
        for (long i = 0; i < whole; i += csim::lanes) {
            std::memcpy(&some, bytes + i, sizeof(some));
            put(i, some);
        }
        if (whole == bits) continue;
        some = csim::lanes_of<std::uint8_t>{};
        std::memcpy(&some, bytes + whole, bits - whole);
        put(whole, some);
    }
}

void run_block(const network &net, const std::uint64_t *x, long count, std::uint64_t *bits, std::uint32_t *counts,
               plane *from, plane *to, std::uint64_t *answers) {
    to_planes(x, count, words_for(net.inputs), from);
    for (const auto &layer : net.layers) {
        (*layer)(from, to);
        std::swap(from, to);
    }
    const long words = words_for(net.outputs());
    to_samples(from, count, words, net.groups ? answers : bits);
    for (long s = 0; net.groups && s < count; ++s) {
        const auto count_all = words == 1 ? count_ones<true> : count_ones<false>;
        count_all(answers + s * words, words, net.members, net.groups, counts + s * net.groups);
    }
}

} // namespace

#define EXPORTED extern "C" [[gnu::visibility("default")]]

// Returns a network of `layers` layers, its first read from `inputs` bits, or null if there is no memory for it.
EXPORTED network *lutnet_new(long inputs, long layers, const layer_data *data, long groups, const std::uint64_t *members) {
    try {
        auto net = std::make_unique<network>(network{inputs, groups, members, {}});
        for (long l = 0; l < layers; ++l) net->layers.push_back(std::make_unique<nnet::lut_layer<layer_data>>(data[l]));
        return net.release();
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

EXPORTED void lutnet_delete(network *net) { delete net; }

// Samples are `packed`, [samples, words], bit i of a sample in bit i % 64 of word i / 64, or `bytes` of 0 and 1. Answers go to
// `counts` [samples, groups], or to `bits` where there are no groups.
EXPORTED int lutnet_run(const network *net, const std::uint64_t *packed, const std::uint8_t *bytes, long samples,
                        std::uint64_t *bits, std::uint32_t *counts, int threads) {
    long widest = net->inputs;
    for (const auto &layer : net->layers) widest = std::max(widest, layer->nodes.units);
    const long in_words = words_for(net->inputs), out_words = words_for(net->outputs());
    std::atomic<long> next{0};
    std::atomic<int> failed{0};
    const auto work = [&] {
        try {
            std::vector<plane> from(64 * words_for(widest)), to(64 * words_for(widest));
            std::vector<std::uint64_t> answers(samples_of_plane * out_words), own(bytes ? samples_of_plane * in_words : 0);
            for (long first; (first = next.fetch_add(samples_of_plane)) < samples;) {
                const long count = samples - first < samples_of_plane ? samples - first : samples_of_plane;
                if (bytes) pack_bytes(bytes + first * net->inputs, count, net->inputs, own.data());
                run_block(*net, bytes ? own.data() : packed + first * in_words, count, bits + (net->groups ? 0 : first * out_words),
                          counts + first * net->groups, from.data(), to.data(), answers.data());
            }
        } catch (...) {  // no memory: nothing may be thrown into the caller, which is not C++
            failed = 1;
        }
    };
    std::vector<std::thread> others;
    try {
        while (int(others.size()) + 1 < threads) others.emplace_back(work);
    } catch (...) {  // the threads there are do the work
    }
    work();
    for (auto &thread : others) thread.join();
    return failed;
}
