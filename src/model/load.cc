// load_model: config and tensors of a directory become a Model, packed in parallel.
//
// The tensor table says what goes where; here every destination becomes one or more pack jobs.
// Large matrices are cut into slices, and a job lets go of the file's pages that it has read: the
// peak stays at the packed size.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "base/parallel_jobs.h"
#include "base/topology.h"
#include "model/config.h"
#include "model/footprint.h"
#include "model/mode.h"
#include "model/pack_store.h"
#include "model/place.h"
#include "model/profile.h"
#include "model/stored_views.h"
#include "ops/matmul/pack.h"

namespace sluice {

namespace {

constexpr size_t kSliceBytes = size_t{16} << 20;

struct PackJob {
  size_t bytes = 0;
  std::string what;  // for messages
  std::function<Status()> run;
  std::vector<std::pair<const std::byte*, size_t>> reads;  // of mapped files
};

std::string name_of(const ResolvedRule& r, int64_t expert) {
  const std::vector<ResolvedTensor>& tensors = r.tensors.front();
  const bool packed = tensors.size() == 1 && r.rule->experts > 0;
  const TensorView& view = *tensors[packed ? 0 : static_cast<size_t>(expert)].view;
  return packed ? fmt::format("{}: tensor {}, expert {}", view.file, view.name, expert)
                : fmt::format("{}: tensor {}", view.file, view.name);
}

// Turns resolved rules into jobs that fill `model`.
class JobMaker {
 public:
  JobMaker(Runtime& runtime, Model& model, std::vector<PackJob>& jobs)
      : device_(runtime.device()), host_(runtime.host()), model_(model), jobs_(jobs) {}
  // The first allocation that failed.
  const Status& status() const { return failure_; }

  void add(const ResolvedRule& r) {
    rule_ = &r;
    std::visit([this](const auto& to) { make(to); }, r.rule->to);
  }

 private:
  PackJob& job(int64_t expert, size_t bytes) {
    jobs_.push_back({bytes, name_of(*rule_, expert), nullptr, stored_ranges(*rule_, expert)});
    return jobs_.back();
  }

  void make(ToVector to) {
    const ResolvedRule& r = *rule_;
    F32Vector* out = to(model_, r.rule->layer);
    job(0, static_cast<size_t>(r.rule->n) * 4).run = [this, &r, out] {
      std::vector<float> values = read_vector(*r.tensors[0][0].view, 0, r.rule->n);
      for (float& v : values) v *= r.rule->multiplier;
      *out = std::move(values);
      return out->move_to(device_);
    };
  }

  void make(ToScalar to) {
    const ResolvedRule& r = *rule_;
    float* out = to(model_, r.rule->layer);
    job(0, 4).run = [&r, out] {
      *out = read_vector(*r.tensors[0][0].view, 0, 1)[0];
      return ok_status();
    };
  }

  void pack_into(PackedMatrix* out, int64_t expert) {
    const ResolvedRule& r = *rule_;
    const WeightFormat format = packed_format(*r.rule, &r, model_.compute);
    const WeightLayout layout = r.rule->glu ? WeightLayout::kGluPanel16 : WeightLayout::kPanel16;
    const size_t bytes = packed_bytes(format, layout, r.rule->n, r.rule->k);
    if (bytes > 2 * kSliceBytes && !r.rule->glu && (*r.way)[0].axes == "NK" && r.rule->experts == 0)
      return pack_in_slices(out, format);
    PackJob& j = job(expert, bytes);
    j.run = [this, &r, out, expert, format] {
      SLUICE_ASSIGN_OR_RETURN(PackedMatrix packed, pack_resolved(host_, r, expert, format));
      SLUICE_ASSIGN_OR_RETURN(*out, place(device_, std::move(packed), "weights"));
      return ok_status();
    };
  }

  // One allocation, filled by jobs of some megabytes each.
  void pack_in_slices(PackedMatrix* out, WeightFormat format) {
    const ResolvedRule& r = *rule_;
    out->format = format;
    out->n = r.rule->n;
    out->k = r.rule->k;
    out->bytes = packed_bytes(format, WeightLayout::kPanel16, out->n, out->k);
    Result<Buffer> buffer = device_.allocate(out->bytes, name_of(r, 0));
    if (!buffer.ok()) {
      if (failure_.ok()) failure_ = buffer.status();
      return;
    }
    std::byte* data = buffer->data();
    out->data = data;
    out->owner = std::make_shared<const Buffer>(std::move(buffer).value());
    const size_t panel = panel_bytes(format, out->k);
    const int64_t step =
        std::max<int64_t>(1, static_cast<int64_t>(kSliceBytes / panel)) * kPanelColumns;
    for (int64_t first = 0; first < out->n; first += step) {
      const RowSlice rows{first, std::min(step, out->n - first)};
      std::byte* to = data + static_cast<size_t>(first / kPanelColumns) * panel;
      jobs_.push_back({static_cast<size_t>(ceil_div(rows.count, kPanelColumns)) * panel,
                       name_of(r, 0),
                       [this, &r, rows, format, to] { return pack_slice(r, rows, format, to); },
                       {stored_range(r, rows)}});
    }
  }

  // Rows of a large matrix into their place on the device.
  Status pack_slice(const ResolvedRule& r, const RowSlice& rows, WeightFormat format,
                    std::byte* to) const {
    if (device_.kind() == DeviceKind::kCpu) return pack_rows(r, rows, format, to);
    const size_t bytes =
        static_cast<size_t>(ceil_div(rows.count, kPanelColumns)) * panel_bytes(format, r.rule->k);
    SLUICE_ASSIGN_OR_RETURN(const Buffer packed, host_.allocate(bytes, "weights"));
    SLUICE_RETURN_IF_ERROR(pack_rows(r, rows, format, packed.data()));
    return device_.upload(to, packed.data(), bytes, nullptr);
  }

  void make(ToMatrix to) { pack_into(to(model_, rule_->rule->layer), 0); }
  void make(ToGateUp to) { pack_into(&to(model_, rule_->rule->layer)->gate_up, 0); }
  void make(ToExperts to) {
    std::vector<PackedMatrix>* out = to(model_, rule_->rule->layer);
    out->resize(static_cast<size_t>(rule_->rule->experts));
    for (int64_t e = 0; e < rule_->rule->experts; ++e)
      pack_into(&(*out)[static_cast<size_t>(e)], e);
  }

  void make(ToExpertRows to) {
    const ResolvedRule& r = *rule_;
    std::vector<F32Vector>* out = to(model_, r.rule->layer);
    out->resize(static_cast<size_t>(r.rule->experts));
    job(0, static_cast<size_t>(r.rule->parameters()) * 4).run = [this, &r, out] {
      for (int64_t e = 0; e < r.rule->experts; ++e) {
        F32Vector& row = (*out)[static_cast<size_t>(e)];
        row = read_expert_row(r, e);
        SLUICE_RETURN_IF_ERROR(row.move_to(device_));
      }
      return ok_status();
    };
  }

  void make(ToEmbedding) {
    if (model_.spec.tied_head) return pack_into(&model_.embedding, 0);
    const TensorView& view = *rule_->tensors[0][0].view;
    PackedMatrix& e = model_.embedding;
    e.format = view.dtype == DType::kF32   ? WeightFormat::kF32
               : view.dtype == DType::kF16 ? WeightFormat::kF16
                                           : WeightFormat::kBF16;
    e.layout = WeightLayout::kRowMajor;
    e.storage = StorageKind::kMapped;
    e.n = rule_->rule->n;
    e.k = rule_->rule->k;
    e.data = view.data;
    e.bytes = view.bytes;
  }
  void make(ToNothing) {}

  Device& device_;  // where steps run
  Device& host_;
  Model& model_;
  std::vector<PackJob>& jobs_;
  const ResolvedRule* rule_ = nullptr;
  Status failure_;
};

Status run_pack_jobs(Runtime& runtime, const TensorSource& source, const std::vector<PackJob>& jobs,
                     const LoadOptions& options) {
  std::atomic<size_t> done{0};
  SLUICE_RETURN_IF_ERROR(run_jobs(
      runtime.pool(), static_cast<int64_t>(jobs.size()),
      [&](int64_t i) {
        const PackJob& job = jobs[static_cast<size_t>(i)];
        const Status status = guard_mapped_reads([&] { return job.run(); });
        if (!status.ok()) return status.annotate(job.what);
        for (const auto& [data, bytes] : job.reads) source.release_pages(data, bytes);
        ++done;
        return ok_status();
      },
      [&] { return !options.progress || options.progress(done.load(), jobs.size()); },
      "loading was cancelled"));
  return source.health();
}

Status check_memory(Device& device, const ModelFootprint& cost, const std::string& path) {
  const size_t limit = device.memory_bytes();
  // The CPU reads an untied embedding where the file is mapped.
  const size_t needed =
      cost.weight_bytes + (device.kind() == DeviceKind::kCpu ? 0 : cost.mapped_bytes);
  if (needed <= limit) return ok_status();
  return resource_exhausted("{}: the weights need {} bytes of memory, {} has {}", path, needed,
                            device.kind() == DeviceKind::kCpu ? "the machine" : device.name(),
                            limit);
}

Result<std::unique_ptr<Model>> load_resolved(Runtime& runtime, std::unique_ptr<Model> model,
                                             const TensorTable& table, const Resolution& resolution,
                                             const std::string& path, const LoadOptions& options) {
  const ModelFootprint cost = footprint(model->spec, table, &resolution, options.compute);
  SLUICE_RETURN_IF_ERROR(check_memory(runtime.device(), cost, path));
  model->layers.resize(model->spec.layers.size());
  std::vector<PackJob> jobs;
  JobMaker maker(runtime, *model, jobs);
  for (const ResolvedRule& r : resolution.rules) {
    maker.add(r);
    if (r.rule->role == TensorRole::kEmbedding)
      model->spec.embed_scale =
          round_to_stored(model->spec.embed_scale, r.tensors[0][0].view->dtype);
  }
  SLUICE_RETURN_IF_ERROR(maker.status());
  // Long jobs first, so that the workers end together.
  std::stable_sort(jobs.begin(), jobs.end(),
                   [](const PackJob& a, const PackJob& b) { return a.bytes > b.bytes; });
  SLUICE_RETURN_IF_ERROR(run_pack_jobs(runtime, *model->source, jobs, options));
  if (model->spec.tied_head) {
    model->head = model->embedding;
    model->source.reset();  // nothing points into the files any more
  } else if (runtime.device().kind() != DeviceKind::kCpu) {
    SLUICE_ASSIGN_OR_RETURN(model->embedding,
                            place(runtime.device(), std::move(model->embedding), "embedding"));
    model->source.reset();
  }
  for (LayerWeights& layer : model->layers)
    SLUICE_RETURN_IF_ERROR(layer.moe.bind(runtime.device()));
  model->weight_bytes = cost.weight_bytes;
  return model;
}

}  // namespace

Result<std::unique_ptr<Model>> load_model(Runtime& runtime, const std::string& path,
                                          const LoadOptions& options) {
  if (is_packed_store(path)) {
    SLUICE_ASSIGN_OR_RETURN(auto packed, load_packed_store(runtime, path, options));
    const auto* store = static_cast<const PackedStore*>(packed->source.get());
    if (store != nullptr && !options.copy) store->read_ahead();
    return packed;
  }
  const auto start = std::chrono::steady_clock::now();
  SLUICE_ASSIGN_OR_RETURN(ModelConfig config, read_model_config(path));
  auto model = std::make_unique<Model>();
  model->compute = options.compute;
  model->mode = options.mode;
  model->bf16_dot = options.bf16_dot;
  SLUICE_ASSIGN_OR_RETURN(model->generation, read_generation_defaults(path, config.spec));
  SLUICE_ASSIGN_OR_RETURN(model->source, open_tensor_source(path));
  TensorTable table;
  config.family->declare(config.spec, table);
  const Resolution resolution = resolve(table, *model->source, config.quantization);
  SLUICE_RETURN_IF_ERROR(resolution.status());
  model->spec = std::move(config.spec);
  SLUICE_ASSIGN_OR_RETURN(
      model, load_resolved(runtime, std::move(model), table, resolution, path, options));
  SLUICE_RETURN_IF_ERROR(check_mode(*model, path));
  SLUICE_RETURN_IF_ERROR(check_kernels(runtime.context().isa, *model, path));
  SLUICE_RETURN_IF_ERROR(apply_profile(runtime.device(), options.profile, *model, path));
  model->load_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return model;
}

}  // namespace sluice
