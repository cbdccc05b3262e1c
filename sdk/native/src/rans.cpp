#include "percodec/rans.hpp"

#include "kernels.hpp"
#include "payload.hpp"

namespace percodec {
namespace {

// What this case allows and this processor has. Fewer lanes than `avx2_from` are left to the scalar kernel.
Kernel choose(Kernel wanted, const Tables& tables, unsigned lanes, unsigned avx2_from) noexcept {
#if defined(__x86_64__)
    const bool avx2 = tables.levels() <= kAvx2Levels && lanes % kAvx2Lanes == 0 && kernel_supported(Kernel::avx2);
    const bool avx512 = tables.levels() <= kVectorLevels && kernel_supported(Kernel::avx512);
    const bool any = wanted == Kernel::automatic;
    if (avx512 && (wanted == Kernel::avx512 || (any && lanes > kAvx2Lanes))) return Kernel::avx512;
    if (avx2 && (wanted == Kernel::avx2 || (any && lanes >= avx2_from))) return Kernel::avx2;
#elif defined(__aarch64__)
    static_cast<void>(avx2_from);
    const bool neon = tables.levels() <= kNeonLevels && lanes % kNeonLanes == 0;
    if (neon && (wanted == Kernel::neon || wanted == Kernel::automatic)) return Kernel::neon;
#else
    static_cast<void>(wanted), static_cast<void>(tables), static_cast<void>(lanes), static_cast<void>(avx2_from);
#endif
    return Kernel::scalar;
}

// Whether profiles 1 and 2 go through their AVX-512 form.
bool wide_kernel(Kernel wanted, const Tables& tables, unsigned lanes) noexcept {
    const bool fits = tables.wide(0) != nullptr && lanes >= 8 && (lanes & (lanes - 1)) == 0;
    return fits && (wanted == Kernel::automatic || wanted == Kernel::avx512) && kernel_supported(Kernel::avx512);
}

EncodeKernel encode_kernel(Kernel chosen, unsigned lanes) noexcept {
#if defined(__x86_64__)
    if (chosen == Kernel::avx512 && lanes == 64 && wide_supported()) return encode_avx512_wide;
    if (chosen == Kernel::avx512) return encode_avx512;
    if (chosen == Kernel::avx2) return encode_avx2;
#elif defined(__aarch64__)
    if (chosen == Kernel::neon) return encode_neon;
#else
    static_cast<void>(chosen);
#endif
    static_cast<void>(lanes);
    return encode_scalar;
}

DecodeKernel decode_kernel(Kernel chosen, unsigned lanes) noexcept {
#if defined(__x86_64__)
    if (chosen == Kernel::avx512 && lanes == 64 && wide_supported()) return decode_avx512_wide;
    if (chosen == Kernel::avx512) return decode_avx512;
    if (chosen == Kernel::avx2) return decode_avx2;
#elif defined(__aarch64__)
    if (chosen == Kernel::neon) return decode_neon;
#else
    static_cast<void>(chosen);
#endif
    static_cast<void>(lanes);
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
                                          __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
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
    const EncodeKernel run = encode_kernel(choose(kernel, tables, lanes, 8), lanes);
    return write_payload(lanes, kStateLow, begin, end, payload,
                         [&](std::uint32_t* states, std::uint8_t* first, std::uint8_t* last) {
                             return run(tables, symbols, plane, lanes, states, first, last);
                         });
}

Status decode_payload(const Tables& tables, const std::uint8_t* payload, std::size_t size, std::size_t plane,
                      unsigned lanes, Kernel kernel, std::uint8_t* symbols) noexcept {
    const Kernel chosen = choose(kernel, tables, lanes, 16);
    const DecodeKernel run = decode_kernel(chosen, lanes);
    std::size_t group_bytes = 2 * std::size_t{lanes};
    if (chosen == Kernel::avx512) group_bytes = (group_bytes + 31) / 32 * 32;  // it reads whole registers
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
                             if (wide_kernel(kernel, tables, *lanes)) {
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
    const bool wide = wide_kernel(kernel, tables, lanes);
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
