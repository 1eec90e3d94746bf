#include "model/pack_plan.h"

#include "model/footprint.h"
#include "model/stored_views.h"

namespace sluice {
namespace {

bool stored_as(const ResolvedRule& r, DType dtype) {
  for (const auto& tensors : r.tensors)
    for (const ResolvedTensor& t : tensors)
      if (t.view->dtype != dtype) return false;
  return true;
}

// Codes that packing chooses, or fp8 ones that it keeps, whatever the weights are stored as.
bool chooses_codes(WeightFormat format) {
  return is_int_format(format) || is_block_format(format) || format == WeightFormat::kFP8 ||
         format == WeightFormat::kMXFP4;
}

// The matrix that V is computed from.
bool computes_values(const TensorRule& rule, const ModelSpec& spec) {
  if (rule.role != TensorRole::kAttention || rule.k == 0) return false;
  const std::string& name = rule.ways.front().front().names.front();
  const AttentionSpec& a = spec.layers[static_cast<size_t>(rule.layer)].attention;
  return name.ends_with("v_proj.weight") || (a.k_is_v && name.ends_with("k_proj.weight"));
}

class Planner {
 public:
  Planner(const ModelSpec& spec, const PackOptions& options) : spec_(spec), options_(options) {}

  Status add(const ResolvedRule& r) {
    rule_ = &r;
    return std::visit([this](const auto& to) { return make(to); }, r.rule->to);
  }
  PackPlan take() {
    plan_.header.fits_f32 = fits_f32_;
    plan_.header.fits_bf16 = fits_bf16_;
    return std::move(plan_);
  }

 private:
  WeightFormat wanted() const {
    switch (rule_->rule->role) {
      case TensorRole::kExperts:
        return options_.weights;
      case TensorRole::kHead:
      case TensorRole::kEmbedding:
        return options_.head_or_default();
      default:
        return options_.dense_or_default();
    }
  }
  // What load_model would make of it for a compute mode.
  WeightFormat plain(Compute compute) const { return packed_format(*rule_->rule, rule_, compute); }

  Result<WeightFormat> format_of(WeightFormat wanted) const {
    const TensorRule& rule = *rule_->rule;
    const WeightFormat as_loaded = plain(
        options_.weights == WeightFormat::kF32 || wanted == WeightFormat::kF32 ? Compute::kF32
                                                                               : Compute::kBf16);
    if (rule.role == TensorRole::kRouter || computes_values(rule, spec_)) return as_loaded;
    if (wanted == WeightFormat::kMXFP4 && rule.k % 32 != 0)
      return invalid_argument("{}: mxfp4: K: expected a multiple of 32, got {}",
                              store_name(rule, 0), rule.k);
    return chooses_codes(wanted) ? wanted : as_loaded;
  }

  StoreEntry& entry(std::string name, PackItem item) {
    StoreEntry e;
    e.name = std::move(name);
    e.role = tensor_role_name(rule_->rule->role);
    e.stored = rule_->tensors[0][0].view->dtype;
    e.n = rule_->rule->n;
    e.k = rule_->rule->k;
    plan_.header.entries.push_back(std::move(e));
    plan_.items.push_back(std::move(item));
    return plan_.header.entries.back();
  }

  void add_matrix(std::string name, int64_t expert, WeightFormat format) {
    const bool blocks = rule_->way->front().dtypes == DtypePolicy::kBytes;
    PackItem item{.rule = rule_, .expert = expert};
    item.exact = blocks ? WeightFormat::kMXFP4 : WeightFormat::kF32;
    const bool chosen = chooses_codes(format) && !(blocks && format == WeightFormat::kMXFP4);
    item.lossy = chosen || (format == WeightFormat::kBF16 && !stored_as(*rule_, DType::kBF16));
    StoreEntry& e = entry(std::move(name), std::move(item));
    e.format = format;
    e.layout = rule_->rule->glu ? WeightLayout::kGluPanel16 : WeightLayout::kPanel16;
    if (is_int_format(format)) e.block = options_.group;
    if (chosen) return;  // every compute mode takes these
    fits_f32_ = fits_f32_ && format == plain(Compute::kF32);
    fits_bf16_ = fits_bf16_ && format == plain(Compute::kBf16);
  }

  void add_vector(int64_t count, std::function<std::vector<float>()> values) {
    PackItem item{.rule = rule_, .values = std::move(values)};
    StoreEntry& e = entry(store_name(*rule_->rule, 0), std::move(item));
    e.vector = true;
    e.n = count;
    e.k = 0;
  }

  Status make(ToVector) {
    const ResolvedRule& r = *rule_;
    add_vector(r.rule->n, [&r] {
      std::vector<float> v = read_vector(*r.tensors[0][0].view, 0, r.rule->n);
      for (float& x : v) x *= r.rule->multiplier;
      return v;
    });
    return ok_status();
  }
  Status make(ToScalar) {
    const ResolvedRule& r = *rule_;
    add_vector(1, [&r] { return read_vector(*r.tensors[0][0].view, 0, 1); });
    return ok_status();
  }
  Status make(ToExpertRows) {
    const ResolvedRule& r = *rule_;
    add_vector(r.rule->experts * r.rule->n, [&r] {
      std::vector<float> all;
      for (int64_t e = 0; e < r.rule->experts; ++e) {
        const std::vector<float> row = read_expert_row(r, e);
        all.insert(all.end(), row.begin(), row.end());
      }
      return all;
    });
    return ok_status();
  }
  Status make(ToMatrix) { return one_matrix(); }
  Status make(ToGateUp) { return one_matrix(); }
  Status one_matrix() {
    SLUICE_ASSIGN_OR_RETURN(const WeightFormat format, format_of(wanted()));
    add_matrix(store_name(*rule_->rule, 0), 0, format);
    return ok_status();
  }
  Status make(ToExperts) {
    SLUICE_ASSIGN_OR_RETURN(const WeightFormat format, format_of(wanted()));
    for (int64_t e = 0; e < rule_->rule->experts; ++e)
      add_matrix(store_name(*rule_->rule, e), e, format);
    return ok_status();
  }
  // Tied and not quantised: one matrix for both. Else the rows as they are stored, of which a step
  // reads a few, and a quantised head of its own.
  Status make(ToEmbedding) {
    SLUICE_ASSIGN_OR_RETURN(const WeightFormat format, format_of(wanted()));
    if (spec_.tied_head && !chooses_codes(format)) {
      add_matrix(store_name(*rule_->rule, 0), 0, format);
      return ok_status();
    }
    StoreEntry& e = entry(store_name(*rule_->rule, 0), {.rule = rule_});
    e.layout = WeightLayout::kRowMajor;
    e.format = e.stored == DType::kF32   ? WeightFormat::kF32
               : e.stored == DType::kF16 ? WeightFormat::kF16
                                         : WeightFormat::kBF16;
    if (!spec_.tied_head) return ok_status();
    add_matrix(std::string(kTiedHeadName), 0, format);
    plan_.header.entries.back().role = tensor_role_name(TensorRole::kHead);
    return ok_status();
  }
  Status make(ToNothing) { return ok_status(); }

  const ModelSpec& spec_;
  const PackOptions& options_;
  const ResolvedRule* rule_ = nullptr;
  PackPlan plan_;
  bool fits_f32_ = true, fits_bf16_ = true;
};

}  // namespace

Result<WeightFormat> store_format_from_name(const std::string& name) {
  std::string names;
  for (int i = 0; i < kWeightFormats; ++i) {
    const auto format = static_cast<WeightFormat>(i);
    if (format == WeightFormat::kF16) continue;  // row-major only
    if (weight_format_name(format) == name) return format;
    names += fmt::format("{}{}", i == 0 ? "" : ", ", weight_format_name(format));
  }
  return invalid_argument("format: expected one of {}, got \"{}\"", names, name);
}

WeightFormat PackOptions::dense_or_default() const {
  if (dense) return *dense;
  if (weights == WeightFormat::kFP8) return weights;  // checkpoints in fp8 have these so, too
  const bool low = weights != WeightFormat::kF32 && weights != WeightFormat::kBF16;
  return low ? WeightFormat::kInt8 : weights;
}
WeightFormat PackOptions::head_or_default() const {
  if (head) return *head;
  if (weights == WeightFormat::kFP8) return WeightFormat::kInt8;  // of fp8 too coarse for logits
  return PackOptions{.weights = weights}.dense_or_default();
}

std::string PackOptions::text() const {
  std::string out = fmt::format("--weights {}", weight_format_name(weights));
  if (group != kIntBlock) out += fmt::format(" --group {}", group);
  if (dense) out += fmt::format(" --dense {}", weight_format_name(*dense));
  if (head) out += fmt::format(" --head {}", weight_format_name(*head));
  if (nearest) out += " --nearest";
  return out;
}

std::string store_name(const TensorRule& rule, int64_t expert) {
  const StoredTensor& stored = rule.ways.front().front();
  std::string name = stored_name("", stored.names.front(), expert);
  if (rule.k == 0) return name;
  if (name.ends_with("_blocks")) name.resize(name.size() - 7);
  const size_t half = name.find("gate_proj");
  if (rule.glu && half != name.npos) name.replace(half, 9, "gate_up_proj");
  if (rule.experts > 0 && !stored.per_expert()) name += fmt::format(".{}", expert);
  return name;
}

bool PackItem::sliced(size_t from_bytes, const StoreEntry& entry) const {
  if (values) return false;
  if (entry.layout == WeightLayout::kRowMajor) return true;
  return !rule->rule->glu && rule->rule->experts == 0 && entry.bytes > from_bytes &&
         rule->way->front().axes == "NK";
}

std::string PackItem::where() const {
  const TensorView& view = *rule->tensors[0][0].view;
  return fmt::format("{}: tensor {}", view.file, view.name);
}

Result<PackPlan> plan_store(const ModelSpec& spec, const Resolution& resolution,
                            const PackOptions& options) {
  Planner planner(spec, options);
  for (const ResolvedRule& r : resolution.rules) SLUICE_RETURN_IF_ERROR(planner.add(r));
  PackPlan plan = planner.take();
  if (!plan.header.fits_f32 && !plan.header.fits_bf16)
    return invalid_argument(
        "pack: {} mixes weights rounded to bf16 with f32 ones, which no compute mode takes",
        options.text());
  return plan;
}

}  // namespace sluice
