// load_packed_store: the tensor table finds its weights in a packed store by name.
#include <chrono>
#include <cstring>

#include "model/config.h"
#include "model/footprint.h"
#include "model/mode.h"
#include "model/pack_store.h"
#include "model/place.h"
#include "model/profile.h"
#include "model/stored_views.h"

namespace sluice {
namespace {

// The store's payload in one block of memory, where the device can give it large pages.
Result<std::shared_ptr<const Buffer>> copy_payload(Runtime& runtime, const PackedStore& store,
                                                   const LoadOptions& options) {
  constexpr uint64_t kPiece = uint64_t{16} << 20;
  const uint64_t bytes = store.header().file_bytes - store.header().payload;
  SLUICE_ASSIGN_OR_RETURN(Buffer buffer, runtime.host().allocate(bytes, "weights"));
  const auto pieces = ceil_div(static_cast<int64_t>(bytes), static_cast<int64_t>(kPiece));
  const int64_t together = 4 * runtime.pool().size();
  for (int64_t first = 0; first < pieces; first += together) {
    if (options.progress &&
        !options.progress(static_cast<size_t>(first), static_cast<size_t>(pieces)))
      return Status(StatusCode::kCancelled, "loading was cancelled");
    runtime.pool().parallel_for(std::min(together, pieces - first), 1, [&](int64_t i, int) {
      const uint64_t at = static_cast<uint64_t>(first + i) * kPiece;
      const uint64_t count = std::min(kPiece, bytes - at);
      std::memcpy(buffer.data() + at, store.payload() + at, count);
      store.release_pages(store.payload() + at, count);
    });
  }
  SLUICE_RETURN_IF_ERROR(store.health());
  return std::make_shared<const Buffer>(std::move(buffer));
}

// Where a rule's weights go, each once; the counterpart of the packer's plan.
class StoreLoader {
 public:
  StoreLoader(Runtime& runtime, const PackedStore& store, std::shared_ptr<const Buffer> copy,
              Model& model)
      : device_(runtime.device()), store_(store), copy_(std::move(copy)), model_(model) {}

  Status load(const TensorRule& rule) {
    rule_ = &rule;
    return std::visit([this](const auto& to) { return make(to); }, rule.to);
  }
  size_t used() const { return used_; }
  size_t bytes() const { return bytes_; }

 private:
  Status damaged(const std::string& name, std::string_view what) const {
    return data_loss("{}: tensor {}: {}; make the store again: {}", store_.where(), name, what,
                     store_.remake());
  }

  // The entry of that name, of the rule's shape. Null if it is absent and may be.
  Result<const StoreEntry*> find(const std::string& name, bool vector, int64_t n, int64_t k) {
    const StoreEntry* e = store_.entry(name);
    if (e == nullptr && rule_->optional) return e;
    if (e == nullptr)
      return damaged(name, "is missing: the store was packed from another model or version");
    if (e->vector != vector || e->n != n || e->k != k)
      return damaged(name, fmt::format("shape ({}): expected [{}, {}], got [{}, {}]",
                                       rule_->letters, n, k, e->n, e->k));
    ++used_;
    bytes_ += e->bytes;
    return e;
  }

  // Where the bytes are: in the mapped file, or in the copy of its payload.
  PackedMatrix matrix_of(const StoreEntry& e) const {
    PackedMatrix m = store_.matrix(e);
    if (copy_ == nullptr) return m;
    m.data = copy_->data() + (e.offset - store_.header().payload);
    m.storage = StorageKind::kHeap;
    m.owner = copy_;
    return m;
  }

  Status matrix(const std::string& name, PackedMatrix* out) {
    SLUICE_ASSIGN_OR_RETURN(const StoreEntry* e, find(name, false, rule_->n, rule_->k));
    if (e == nullptr) return ok_status();
    const WeightLayout want = rule_->glu ? WeightLayout::kGluPanel16 : WeightLayout::kPanel16;
    if (e->layout != want)
      return damaged(name, fmt::format("layout: expected {}, got {}", weight_layout_name(want),
                                       weight_layout_name(e->layout)));
    SLUICE_ASSIGN_OR_RETURN(*out, place(device_, matrix_of(*e), name));
    return ok_status();
  }
  Result<std::vector<float>> values(int64_t count) {
    SLUICE_ASSIGN_OR_RETURN(const StoreEntry* e, find(store_name(*rule_, 0), true, count, 0));
    return e == nullptr ? std::vector<float>() : store_.vector(*e);
  }

  Status make(ToVector to) {
    F32Vector* out = to(model_, rule_->layer);
    SLUICE_ASSIGN_OR_RETURN(*out, values(rule_->n));
    return out->move_to(device_);
  }
  Status make(ToScalar to) {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<float> v, values(1));
    if (!v.empty()) *to(model_, rule_->layer) = v[0];
    return ok_status();
  }
  Status make(ToExpertRows to) {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<float> all, values(rule_->experts * rule_->n));
    std::vector<F32Vector>* out = to(model_, rule_->layer);
    for (auto row = all.begin(); row != all.end(); row += rule_->n) {
      out->push_back(std::vector<float>(row, row + rule_->n));
      SLUICE_RETURN_IF_ERROR(out->back().move_to(device_));
    }
    return ok_status();
  }
  Status make(ToMatrix to) { return matrix(store_name(*rule_, 0), to(model_, rule_->layer)); }
  Status make(ToGateUp to) {
    return matrix(store_name(*rule_, 0), &to(model_, rule_->layer)->gate_up);
  }
  Status make(ToExperts to) {
    std::vector<PackedMatrix>* out = to(model_, rule_->layer);
    out->resize(static_cast<size_t>(rule_->experts));
    for (int64_t e = 0; e < rule_->experts; ++e)
      SLUICE_RETURN_IF_ERROR(matrix(store_name(*rule_, e), &(*out)[static_cast<size_t>(e)]));
    return ok_status();
  }
  Status make(ToEmbedding) {
    const std::string name = store_name(*rule_, 0);
    SLUICE_ASSIGN_OR_RETURN(const StoreEntry* e, find(name, false, rule_->n, rule_->k));
    if (e == nullptr) return damaged(name, "is missing");
    const bool rows = e->layout == WeightLayout::kRowMajor;
    if (!rows && (!model_.spec.tied_head || e->layout != WeightLayout::kPanel16))
      return damaged(name, "an embedding cannot have this layout");
    model_.spec.embed_scale = round_to_stored(model_.spec.embed_scale, e->stored);
    SLUICE_ASSIGN_OR_RETURN(model_.embedding, place(device_, matrix_of(*e), name));
    if (!model_.spec.tied_head) return ok_status();
    if (rows) return matrix(std::string(kTiedHeadName), &model_.head);
    model_.head = model_.embedding;
    return ok_status();
  }
  Status make(ToNothing) { return ok_status(); }

  Device& device_;
  const PackedStore& store_;
  std::shared_ptr<const Buffer> copy_;  // or null
  Model& model_;
  const TensorRule* rule_ = nullptr;
  size_t used_ = 0, bytes_ = 0;
};

Status check_compute(const PackedStore& store, Compute compute) {
  if (store.header().fits(compute)) return ok_status();
  const Compute other = compute == Compute::kF32 ? Compute::kBf16 : Compute::kF32;
  return invalid_argument(
      "{}: was packed for compute {}, got {}; use --compute {}, or pack it for {}: {}",
      store.where(), compute_name(other), compute_name(compute), compute_name(other),
      compute_name(compute),
      pack_command(store.header().model, store.where(),
                   fmt::format("--weights {}", compute_name(compute))));
}

}  // namespace

Result<std::unique_ptr<Model>> load_packed_store(Runtime& runtime, const std::string& path,
                                                 const LoadOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<PackedStore> store, PackedStore::open(path));
  SLUICE_RETURN_IF_ERROR(check_compute(*store, options.compute));
  SLUICE_ASSIGN_OR_RETURN(ModelConfig config, read_model_config(path));
  auto model = std::make_unique<Model>();
  model->compute = options.compute;
  model->mode = options.mode;
  model->bf16_dot = options.bf16_dot;
  SLUICE_ASSIGN_OR_RETURN(model->generation, read_generation_defaults(path, config.spec));
  model->spec = config.spec;
  model->layers.resize(model->spec.layers.size());
  TensorTable table;
  config.family->declare(config.spec, table);
  const bool on_cpu = runtime.device().kind() == DeviceKind::kCpu;
  if (!on_cpu && store->header().file_bytes > runtime.device().memory_bytes())
    return resource_exhausted("{}: the weights need {} bytes of memory, {} has {}", path,
                              store->header().file_bytes, runtime.device().name(),
                              runtime.device().memory_bytes());
  std::shared_ptr<const Buffer> copy;
  if (options.copy && on_cpu) {
    SLUICE_ASSIGN_OR_RETURN(copy, copy_payload(runtime, *store, options));
  }
  StoreLoader loader(runtime, *store, std::move(copy), *model);
  size_t done = 0;
  for (const TensorRule& rule : table.rules) {
    if (options.progress && !options.progress(done++, table.rules.size()))
      return Status(StatusCode::kCancelled, "loading was cancelled");
    SLUICE_RETURN_IF_ERROR(guard_mapped_reads([&] { return loader.load(rule); }));
  }
  if (loader.used() != store->header().entries.size())
    return data_loss("{}: expected {} tensors of this model, got {}; make the store again: {}",
                     path, loader.used(), store->header().entries.size(), store->remake());
  for (LayerWeights& layer : model->layers)
    SLUICE_RETURN_IF_ERROR(layer.moe.bind(runtime.device()));
  SLUICE_RETURN_IF_ERROR(store->health());
  SLUICE_RETURN_IF_ERROR(check_mode(*model, path));
  SLUICE_RETURN_IF_ERROR(check_kernels(runtime.context().isa, *model, path));
  SLUICE_RETURN_IF_ERROR(apply_profile(runtime.device(), options.profile, *model, path));
  model->weight_bytes = loader.bytes();
  if (on_cpu) model->source = std::move(store);  // asked after every step: the mapping is in use
  if (options.progress && !options.progress(table.rules.size(), table.rules.size()))
    return Status(StatusCode::kCancelled, "loading was cancelled");
  model->load_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return model;
}

}  // namespace sluice
