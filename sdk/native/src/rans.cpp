#include "percodec/rans.hpp"

#include "kernels.hpp"
#include "payload.hpp"

namespace percodec {
namespace {

// Fewer lanes than `avx512_from` and `avx2_from` are left to the others, unless one is asked for.
Kernel choose(Kernel wanted, const Tables& tables, unsigned lanes, unsigned avx512_from, unsigned avx2_from) noexcept {
    const bool any = wanted == Kernel::automatic;
#if defined(__x86_64__)
    if (tables.levels() <= kVectorLevels && lanes >= (any ? avx512_from : 16) && kernel_allowed(wanted, Kernel::avx512))
        return Kernel::avx512;
    if (tables.levels() <= kAvx2Levels && lanes % kAvx2Lanes == 0 && lanes >= (any ? avx2_from : kAvx2Lanes) &&
        kernel_allowed(wanted, Kernel::avx2))
        return Kernel::avx2;
#elif defined(__aarch64__)
    if (tables.levels() <= kNeonLevels && lanes % kNeonLanes == 0 && kernel_allowed(wanted, Kernel::neon))
        return Kernel::neon;
#endif
    static_cast<void>(any), static_cast<void>(tables), static_cast<void>(lanes);
    static_cast<void>(avx512_from), static_cast<void>(avx2_from);
    return Kernel::scalar;
}

// Whether profiles 1 and 2 go through their AVX-512 form.
bool contexts_avx512(Kernel wanted, const Tables& tables, unsigned lanes) noexcept {
    return tables.wide(0) != nullptr && lanes >= 8 && (lanes & (lanes - 1)) == 0 &&
           kernel_allowed(wanted, Kernel::avx512);
}

EncodeKernel encode_kernel(Kernel chosen) noexcept {
#if defined(__x86_64__)
    if (chosen == Kernel::avx512) return encode_avx512;
    if (chosen == Kernel::avx2) return encode_avx2;
#elif defined(__aarch64__)
    if (chosen == Kernel::neon) return encode_neon;
#endif
    static_cast<void>(chosen);
    return encode_scalar;
}

DecodeKernel decode_kernel(Kernel chosen) noexcept {
#if defined(__x86_64__)
    if (chosen == Kernel::avx512) return decode_avx512;
    if (chosen == Kernel::avx2) return decode_avx2;
#elif defined(__aarch64__)
    if (chosen == Kernel::neon) return decode_neon;
#endif
    static_cast<void>(chosen);
    return decode_scalar;
}

}  // namespace

bool kernel_supported(Kernel kernel) noexcept {
    switch (kernel) {
        case Kernel::automatic:
        case Kernel::scalar:
            return true;
        case Kernel::avx2: {
#if defined(__x86_64__)
            static const bool supported = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
            return supported;
#else
            return false;
#endif
        }
        case Kernel::avx512: {
#if defined(__x86_64__)
            static const bool supported = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                                          __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("bmi2") &&
                                          __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("popcnt");
            return supported;
#else
            return false;
#endif
        }
        case Kernel::neon:
#if defined(__aarch64__)
            return true;
#else
            return false;
#endif
    }
    return false;
}

Status encode_payload(const Tables& tables, const std::uint8_t* symbols, std::size_t plane, unsigned lanes,
                      Kernel kernel, std::uint8_t* begin, std::uint8_t* end, std::uint8_t** payload) noexcept {
    const EncodeKernel run = encode_kernel(choose(kernel, tables, lanes, 33, 8));
    return write_payload(lanes, kStateLow, begin, end, payload,
                         [&](std::uint32_t* states, std::uint8_t* first, std::uint8_t* last) {
                             return run(tables, symbols, plane, lanes, states, first, last);
                         });
}

Status decode_payload(const Tables& tables, const std::uint8_t* payload, std::size_t size, std::size_t plane,
                      unsigned lanes, Kernel kernel, std::uint8_t* symbols) noexcept {
    const Kernel chosen = choose(kernel, tables, lanes, 16, 16);
    const DecodeKernel run = decode_kernel(chosen);
    std::size_t group_bytes = 2 * std::size_t{lanes};
    if (chosen == Kernel::avx512) group_bytes = (group_bytes + 63) / 64 * 64;  // it reads whole registers
    return read_payload(payload, size, lanes, kStateLow, group_bytes, [&](std::uint32_t* states, WordReader& words) {
        return run(tables, plane, lanes, states, words, symbols);
    });
}

Status encode_payload(const Tables& tables, const Contexts& contexts, const std::uint8_t* symbols, unsigned channels,
                      std::size_t height, std::size_t width, unsigned* lanes, Kernel kernel, std::uint8_t* begin,
                      std::uint8_t* end, std::uint8_t** payload) noexcept {
    const std::size_t plane = height * width, all = std::size_t{channels} * plane;
    if (static_cast<std::size_t>(end - begin) < payload_bound(all)) return Status::no_space;
    std::uint8_t highest = 0;
    for (std::size_t i = 0; i < all; ++i) highest = symbols[i] > highest ? symbols[i] : highest;
    if (highest >= tables.levels()) return Status::symbol_out_of_range;
    // The contexts lie at the front of the buffer. Words come from its end, at most two bytes for each symbol coded,
    // and contexts of symbols already coded are no longer needed: the two never meet.
    std::uint8_t* const rows = begin;
    const unsigned scale = tables.levels() <= kVectorLevels ? tables.levels() : 1, step = tables.levels() / scale;
    mark_contexts(contexts, symbols, channels, height, width, kernel, scale, rows);
    if (*lanes == 0)
        *lanes = lanes_for_contexts(tables, contexts.contexts(), rows, step, symbols, channels, plane, kernel);
    return write_payload(*lanes, kStateLow, begin, end, payload,
                         [&](std::uint32_t* states, std::uint8_t* first, std::uint8_t* last) {
#if defined(__x86_64__)
                             if (contexts_avx512(kernel, tables, *lanes)) {
                                 return encode_contexts_avx512(tables, contexts.contexts(), rows, symbols, channels,
                                                               height, width, *lanes, states, first, last);
                             }
#endif
                             return encode_contexts(tables, contexts.contexts(), rows, step, symbols, channels, height,
                                                    width, *lanes, states, first, last);
                         });
}

Status decode_payload(const Tables& tables, const Contexts& contexts, const std::uint8_t* payload, std::size_t size,
                      unsigned channels, std::size_t height, std::size_t width, unsigned lanes, Kernel kernel,
                      std::uint8_t* symbols) noexcept {
    const bool wide = contexts_avx512(kernel, tables, lanes);
    const std::size_t group_bytes =
        wide && lanes < 16 ? 32 : 2 * std::size_t{lanes};  // that form reads whole registers
    return read_payload(payload, size, lanes, kStateLow, group_bytes, [&](std::uint32_t* states, WordReader& words) {
#if defined(__x86_64__)
        if (wide)
            return decode_contexts_avx512(tables, contexts, channels, height, width, lanes, states, words, symbols);
#endif
        return decode_contexts(tables, contexts, channels, height, width, lanes, kernel, states, words, symbols);
    });
}

}  // namespace percodec
