#include "cli/synth.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "base/fp.h"
#include "base/thread_pool.h"
#include "base/topology.h"
#include "cli/synth_configs.h"
#include "model/config.h"
#include "model/tensor_table.h"
#include "weights/safetensors_writer.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

constexpr uint64_t kShardBytes = uint64_t{4} << 30;
constexpr size_t kChunkBytes = size_t{16} << 20;

// What the elements of a tensor look like.
struct Distribution {
  enum Kind { kUniform, kBytes, kScales } kind = kUniform;
  float centre = 0, width = 1;  // uniform in centre +- width
};
struct SynthTensor {
  TensorToWrite tensor;
  Distribution distribution;
  uint64_t key = 0;
  uint64_t bytes() const {
    uint64_t n = static_cast<uint64_t>(dtype_bits(tensor.dtype)) / 8;
    for (int64_t d : tensor.shape) n *= static_cast<uint64_t>(d);
    return n;
  }
};

// One 64-bit hash per counter: any part of a tensor can be made alone (SplitMix64's finaliser).
uint64_t mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint64_t key_of(const std::string& name, uint64_t seed) {
  uint64_t key = mix(seed);
  for (char c : name) key = mix(key ^ static_cast<unsigned char>(c));
  return key;
}

// Bytes [begin, end) of a tensor, both multiples of 8 (or end its last byte), into `out`.
void generate(const SynthTensor& t, uint64_t begin, uint64_t end, std::byte* out) {
  const float step = t.distribution.width / 32768.0f;
  for (uint64_t at = begin; at < end; at += 8) {
    uint64_t word = mix(t.key + at / 8 * 0x2545f4914f6cdd1du);
    if (t.distribution.kind == Distribution::kUniform) {
      uint64_t packed = 0;
      for (int i = 0; i < 4; ++i) {
        const auto r = static_cast<int16_t>(word >> (16 * i));
        const bf16 v(t.distribution.centre + static_cast<float>(r) * step);
        packed |= uint64_t{v.bits} << (16 * i);
      }
      word = packed;
    } else if (t.distribution.kind == Distribution::kScales) {
      // 2^-8 .. 2^-5: with E2M1 codes about the scale of trained weights.
      word = (word & 0x0303030303030303u) + 0x7777777777777777u;
    }
    std::memcpy(out + (at - begin), &word, std::min<uint64_t>(8, end - at));
  }
}

Distribution distribution_of(const TensorRule& rule, const StoredTensor& stored) {
  if (stored.dtypes == DtypePolicy::kBytes)
    return {stored.axes.ends_with('b') ? Distribution::kBytes : Distribution::kScales};
  if (rule.k > 0)
    return {Distribution::kUniform, 0.0f, std::sqrt(3.0f / static_cast<float>(rule.k))};
  const bool bias = stored.names.front().find("bias") != std::string::npos;
  if (bias || stored.names.front().ends_with("sinks")) return {Distribution::kUniform, 0.0f, 0.2f};
  return {Distribution::kUniform, 1.0f, 0.1f};  // norms and scales
}

// The published tensors of the table, in its order.
std::vector<SynthTensor> published_tensors(const TensorTable& table, uint64_t seed) {
  std::vector<SynthTensor> out;
  for (const TensorRule& rule : table.rules) {
    if (std::holds_alternative<ToNothing>(rule.to)) continue;
    for (const StoredTensor& stored : rule.ways.front()) {
      const bool bytes = stored.dtypes == DtypePolicy::kBytes;
      for (int64_t e = 0; e < (stored.per_expert() ? rule.experts : 1); ++e) {
        SynthTensor t;
        t.tensor.name = stored_name(table.prefixes.front(), stored.names.front(), e);
        t.tensor.dtype = bytes ? DType::kU8 : DType::kBF16;
        t.tensor.shape = stored_shape(rule, stored);
        t.distribution = distribution_of(rule, stored);
        t.key = key_of(t.tensor.name, seed);
        out.push_back(std::move(t));
      }
    }
  }
  return out;
}

std::vector<std::vector<SynthTensor>> cut_into_shards(std::vector<SynthTensor> tensors) {
  std::vector<std::vector<SynthTensor>> shards(1);
  uint64_t bytes = 0;
  for (SynthTensor& t : tensors) {
    if (bytes > 0 && bytes + t.bytes() > kShardBytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += t.bytes();
    shards.back().push_back(std::move(t));
  }
  return shards;
}

class ShardWriter {
 public:
  ShardWriter(ThreadPool& pool, uint64_t total, Progress& progress)
      : pool_(pool), total_(total), progress_(progress), buffer_(kChunkBytes) {}

  Status write(const std::string& path, const std::vector<SynthTensor>& shard) {
    std::vector<TensorToWrite> declared;
    declared.reserve(shard.size());
    for (const SynthTensor& t : shard) declared.push_back(t.tensor);
    SLUICE_ASSIGN_OR_RETURN(const auto writer,
                            SafetensorsWriter::create(path, declared, {{"format", "pt"}}));
    for (const SynthTensor& t : shard) SLUICE_RETURN_IF_ERROR(write_tensor(t, *writer));
    return writer->finish();
  }

 private:
  Status write_tensor(const SynthTensor& t, SafetensorsWriter& writer) {
    constexpr uint64_t kPiece = 256 << 10;
    for (uint64_t begin = 0; begin < t.bytes(); begin += kChunkBytes) {
      if (interrupted()) return {StatusCode::kCancelled, "interrupted"};
      const uint64_t end = std::min<uint64_t>(t.bytes(), begin + kChunkBytes);
      const auto pieces = static_cast<int64_t>((end - begin + kPiece - 1) / kPiece);
      pool_.parallel_for(pieces, 1, [&](int64_t i, int) {
        const uint64_t from = begin + static_cast<uint64_t>(i) * kPiece;
        generate(t, from, std::min(end, from + kPiece), buffer_.data() + (from - begin));
      });
      SLUICE_RETURN_IF_ERROR(writer.write(buffer_.data(), end - begin));
      done_ += end - begin;
      progress_.update(done_, total_);
    }
    return ok_status();
  }

  ThreadPool& pool_;
  uint64_t total_, done_ = 0;
  Progress& progress_;
  std::vector<std::byte> buffer_;
};

Status write_json(const std::string& path, const ordered_json& value) {
  SLUICE_ASSIGN_OR_RETURN(const auto file, OutputFile::create(path));
  const std::string text = value.dump(2) + "\n";
  SLUICE_RETURN_IF_ERROR(file->write(text.data(), text.size()));
  return file->commit();
}

Status write_all(const SynthOptions& o, const SynthConfig& configs,
                 const std::vector<std::vector<SynthTensor>>& shards, uint64_t total,
                 Console& console) {
  if (::mkdir(o.out.c_str(), 0777) != 0 && errno != EEXIST)
    return io_error("{}: cannot make the directory: {}", o.out, std::strerror(errno));
  ThreadPool pool(o.threads > 0 ? o.threads : available_cores());
  Progress progress(console, "writing");
  ShardWriter writer(pool, total, progress);
  std::map<std::string, std::string> map;
  for (size_t s = 0; s < shards.size(); ++s) {
    const std::string file =
        shards.size() == 1 ? "model.safetensors"
                           : fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards.size());
    for (const SynthTensor& t : shards[s]) map[t.tensor.name] = file;
    SLUICE_RETURN_IF_ERROR(writer.write(o.out + "/" + file, shards[s]));
  }
  if (shards.size() > 1)
    SLUICE_RETURN_IF_ERROR(
        write_json(o.out + "/model.safetensors.index.json",
                   {{"metadata", {{"total_size", total}}}, {"weight_map", map}}));
  SLUICE_RETURN_IF_ERROR(write_json(o.out + "/generation_config.json", configs.generation));
  return write_json(o.out + "/config.json", configs.config);
}

}  // namespace

std::string synth_families() {
  return "gemma4-26b-a4b, gpt-oss-20b, qwen3-30b-a3b";
}

Status run_synth(const SynthOptions& o, Console& console) {
  const double start = now_seconds();
  if (o.layers < 1 || o.layers > 1000)
    return invalid_argument("layers: expected 1 to 1000, got {}", o.layers);
  if (o.out.empty()) return invalid_argument("out: expected a directory, got nothing");
  const std::optional<SynthConfig> configs = synth_config(o.family, o.layers, o.tiny);
  if (!configs)
    return invalid_argument("family: expected one of {}, got {}", synth_families(), o.family);
  SLUICE_ASSIGN_OR_RETURN(const ModelConfig model,
                          parse_model_config(configs->config, o.out + "/config.json"));
  TensorTable table;
  model.family->declare(model.spec, table);
  std::vector<SynthTensor> tensors = published_tensors(table, o.seed);
  uint64_t total = 0;
  for (const SynthTensor& t : tensors) total += t.bytes();
  const size_t count = tensors.size();
  const auto shards = cut_into_shards(std::move(tensors));
  SLUICE_RETURN_IF_ERROR(write_all(o, *configs, shards, total, console));
  const double seconds = now_seconds() - start;
  if (o.json)
    console.out << ordered_json({{"model", o.out},
                                 {"tensors", count},
                                 {"bytes", total},
                                 {"shards", shards.size()},
                                 {"seconds", seconds}})
                       .dump()
                << "\n";
  else
    console.out << fmt::format("{}: {} tensors, {} in {} file{}, {:.1f} s, {:.0f} MB/s\n", o.out,
                               count, human_bytes(total), shards.size(),
                               shards.size() == 1 ? "" : "s", seconds,
                               static_cast<double>(total) / 1e6 / std::max(seconds, 1e-9));
  return ok_status();
}

}  // namespace sluice
