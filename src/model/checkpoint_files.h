// A small checkpoint in memory that tests read, change and write again.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/fp.h"
#include "base/json.h"
#include "model/model.h"
#include "weights/safetensors_writer.h"
#include "weights/tensor_source.h"
#include "weights/test_files.h"

namespace sluice {

inline std::string golden_dir(const std::string& name) {
  return std::string(SLUICE_SOURCE_DIR) + "/tests/goldens/models/" + name;
}

inline nlohmann::json golden_config(const std::string& name) {
  auto config = read_json_file(golden_dir(name) + "/config.json");
  EXPECT_TRUE(config.ok()) << config.status().message();
  return std::move(config).value();
}

struct CheckpointTensor {
  DType dtype = DType::kBF16;
  std::vector<int64_t> shape;
  std::string bytes;

  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  // bf16 only.
  float value(int64_t i) const {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    return static_cast<float>(bf16::from_bits(bits));
  }
  template <class T>
  void append(T v) {
    bytes.append(reinterpret_cast<const char*>(&v), sizeof(T));
  }
};

struct Checkpoint {
  nlohmann::json config;
  std::map<std::string, CheckpointTensor> tensors;

  static Checkpoint golden(const std::string& name) {
    Checkpoint c;
    c.config = read_json_file(golden_dir(name) + "/config.json").value();
    const auto source = open_tensor_source(golden_dir(name));
    EXPECT_TRUE(source.ok()) << source.status().message();
    for (const TensorView& t : (*source)->tensors())
      c.tensors[t.name] = {t.dtype, t.shape,
                           std::string(reinterpret_cast<const char*>(t.data), t.bytes)};
    return c;
  }

  // One file, or several with an index.
  void write(const std::string& dir, size_t shards = 1) const {
    write_file(dir + "/config.json", config.dump());
    std::vector<std::vector<TensorToWrite>> files(shards);
    nlohmann::json map;
    size_t i = 0;
    for (const auto& [name, t] : tensors) {
      const size_t shard = i++ * shards / tensors.size();
      map[name] = fmt::format("part-{}.safetensors", shard);
      files[shard].push_back(
          {name, t.dtype, t.shape, reinterpret_cast<const std::byte*>(t.bytes.data())});
    }
    for (size_t s = 0; s < shards; ++s) {
      const std::string file =
          shards == 1 ? "model.safetensors" : fmt::format("part-{}.safetensors", s);
      const Status status = write_safetensors(dir + "/" + file, files[s]);
      EXPECT_TRUE(status.ok()) << status.message();
    }
    if (shards > 1)
      write_file(dir + "/model.safetensors.index.json",
                 nlohmann::json{{"metadata", {{"total_size", 1}}}, {"weight_map", map}}.dump());
  }

  CheckpointTensor take(const std::string& name) {
    EXPECT_TRUE(tensors.count(name)) << name;
    CheckpointTensor t = tensors[name];
    tensors.erase(name);
    return t;
  }
  void rename(const std::string& from, const std::string& to) { tensors[to] = take(from); }
};

inline std::unique_ptr<Runtime> runtime_with(int threads) {
  return std::move(Runtime::create({.threads = threads})).value();
}

struct Loaded {
  std::unique_ptr<Runtime> rt;
  std::unique_ptr<Model> model;
};
inline Loaded load_dir(const std::string& dir, Compute compute = Compute::kF32) {
  Loaded l{runtime_with(2), nullptr};
  auto model = load_model(*l.rt, dir, {.compute = compute});
  EXPECT_TRUE(model.ok()) << model.status().message();
  if (model.ok()) l.model = std::move(model).value();
  return l;
}
inline Loaded load(const Checkpoint& c, size_t shards = 1, Compute compute = Compute::kF32) {
  const ScratchDir dir;  // files may go: the mapping stays
  c.write(dir.path(), shards);
  return load_dir(dir.path(), compute);
}
inline Loaded load_golden(const std::string& name, Compute compute = Compute::kF32) {
  return load_dir(golden_dir(name), compute);
}

}  // namespace sluice
