#include "percodec/entropy_model.hpp"

#include <cstring>
#include <fstream>
#include <stdexcept>

#include "percodec/sha256.hpp"

namespace percodec {
namespace {

constexpr std::size_t kFixed = 12;  // bytes before the cdf
constexpr std::streamoff kMaxFile = std::streamoff{16} << 20;

[[noreturn]] void refuse(const std::string& why) {
    throw std::invalid_argument("not an entropy model of percodec: " + why);
}

}  // namespace

EntropyModel::EntropyModel(const std::uint8_t* data, std::size_t size) {
    if (size < kFixed || std::memcmp(data, "PCEM", 4) != 0) refuse("it does not begin with PCEM and a header");
    if (data[4] != 1) refuse("its version is " + std::to_string(data[4]) + ", this reader knows 1");
    profile_ = data[5];
    contexts_ = data[7];
    channels_ = static_cast<unsigned>(data[8] | data[9] << 8);
    levels_ = static_cast<unsigned>(data[10] | data[11] << 8);
    if (profile_ > 5) refuse("its profile is " + std::to_string(profile_) + ", this reader knows 0 to 5");
    if (profile_ >= 4) {
        if (data[6] != kStepBits || contexts_ != kStepClasses) refuse("its precision or classes are not its profile's");
        if (channels_ < 1 || channels_ > kMaxChannels) refuse("channels must be 1..1024");
        context_data_.assign(data + kFixed, data + size);
        digest_ = sha256(data, size);
        const StepTables steps(context_data_.data(), context_data_.size(), channels_, levels_, profile_ == 5);
        for (unsigned c = 0; c < channels_; ++c) ranges_.push_back({steps.plane(c).levels, steps.plane(c).offset});
        return;
    }
    const bool alone = profile_ == 0 || profile_ == 3, pairs = profile_ == 3;
    if (data[6] != (pairs ? kPairBits : kPrecisionBits)) refuse("its precision is not that of its profile");
    if (alone ? contexts_ != 0 : contexts_ < 1 || contexts_ > kMaxContexts) refuse("profile and contexts do not agree");
    if (channels_ < 1 || channels_ > kMaxChannels) refuse("channels must be 1..1024");
    if (levels_ < kMinLevels || levels_ > (pairs ? kPairLevels : kMaxLevels))
        refuse("levels must be 2..256, of pairs 2..8");
    const std::size_t entries =
        std::size_t{channels_} * (contexts_ ? contexts_ : 1) * ((pairs ? levels_ * levels_ : levels_) + 1);
    const std::size_t end = kFixed + 2 * entries;
    if (size < end || (alone && size != end)) refuse("its length is not that of its tables");
    cdf_.resize(entries);
    for (std::size_t k = 0; k < entries; ++k) {
        cdf_[k] = static_cast<std::uint16_t>(data[kFixed + 2 * k] | data[kFixed + 2 * k + 1] << 8);
    }
    context_data_.assign(data + end, data + size);
    digest_ = sha256(data, size);
    coder(1, 1);  // tables and contexts are judged where they are used
}

EntropyModel EntropyModel::open(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
    if (size < 0 || size > kMaxFile)
        throw std::runtime_error(path + " cannot be read, or is larger than any entropy model");
    std::vector<std::uint8_t> data(static_cast<std::size_t>(size));
    file.seekg(0);
    if (!file.read(reinterpret_cast<char*>(data.data()), size)) throw std::runtime_error(path + " cannot be read");
    return EntropyModel(data.data(), data.size());
}

std::uint64_t EntropyModel::table_hash() const noexcept {
    std::uint64_t hash = 0;
    for (unsigned k = 0; k < 8; ++k) hash |= std::uint64_t{digest_[k]} << 8 * k;
    return hash;
}

LatentCoder EntropyModel::coder(std::uint32_t height, std::uint32_t width) const {
    const auto profile = static_cast<std::uint8_t>(profile_);
    if (profile_ == 0) return LatentCoder(cdf_.data(), channels_, levels_, height, width, profile, table_hash());
    if (profile_ == 3)
        return LatentCoder(PairTables(cdf_.data(), channels_, levels_), height, width, profile, table_hash());
    if (profile_ >= 4)
        return LatentCoder(StepTables(context_data_.data(), context_data_.size(), channels_, levels_, profile_ == 5),
                           height, width, profile, table_hash());
    Contexts contexts(context_data_.data(), context_data_.size(), channels_, levels_, contexts_, profile_ == 2);
    return LatentCoder(cdf_.data(), std::move(contexts), channels_, levels_, height, width, profile, table_hash());
}

}  // namespace percodec
