#include "model/pack_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <set>

#include "base/json.h"
#include "base/parallel_jobs.h"
#include "model/config.h"
#include "model/pack_loss.h"
#include "model/pack_plan.h"
#include "model/stored_views.h"
#include "weights/checksum.h"
#include "weights/store_writer.h"

namespace sluice {
namespace {

constexpr size_t kSliceBytes = size_t{16} << 20;

// The small files that are copied beside the weights, where the model has them.
std::vector<std::string> files_beside(const std::string& model_dir) {
  std::vector<std::string> out;
  for (const char* name : {"config.json", "generation_config.json", "tokenizer.json",
                           "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                           "chat_template.jinja", "chat_template.json"}) {
    struct stat st {};
    const std::string path = model_dir + "/" + name;
    if (::stat(path.c_str(), &st) == 0) out.push_back(path);
  }
  return out;
}

// All that the entries are made from: names, shapes and files, and how the files look now.
uint64_t inputs_of(const TensorSource& source) {
  RunningChecksum sum;
  const auto add = [&](const auto& v) { sum.add(&v, sizeof(v)); };
  std::set<std::string> files;
  for (const TensorView& t : source.tensors()) {
    sum.add(t.name.data(), t.name.size());
    add(t.dtype);
    sum.add(t.shape.data(), t.shape.size() * sizeof(int64_t));
    files.insert(t.file);
  }
  for (const std::string& file : files) {
    struct stat st {};
    if (::stat(file.c_str(), &st) != 0) continue;  // reading will tell
    sum.add(file.data(), file.size());
    add(st.st_size);
    add(st.st_mtim.tv_sec);
    add(st.st_mtim.tv_nsec);
  }
  return sum.value();
}

class StorePacker {
 public:
  StorePacker(Runtime& runtime, const TensorSource& source, const PackPlan& plan,
              const PackOptions& options, StoreWriter& writer)
      : host_(runtime.host()),
        pool_(runtime.pool()),
        source_(source),
        plan_(plan),
        options_(options),
        writer_(writer) {
    how_.block = options.group;
    how_.rounding = options.nearest ? IntRounding::kNearest : IntRounding::kSearch;
    for (const StoreEntry& e : writer.header().entries) total_ += e.bytes;
  }

  // Large matrices first, one after the other with every worker on its slices; then the others, one
  // worker each.
  Status run() {
    std::vector<size_t> rest;
    if (!report()) return cancelled();
    for (size_t i = 0; i < plan_.items.size(); ++i) {
      if (writer_.done(i)) {
        done_ += entry(i).bytes;
      } else if (plan_.items[i].sliced(2 * kSliceBytes, entry(i))) {
        SLUICE_RETURN_IF_ERROR(pack_slices(i));
        if (!report()) return cancelled();
      } else {
        rest.push_back(i);
      }
    }
    std::stable_sort(rest.begin(), rest.end(),
                     [&](size_t a, size_t b) { return entry(a).bytes > entry(b).bytes; });
    SLUICE_RETURN_IF_ERROR(for_each(rest.size(), [&](size_t i) { return pack_one(rest[i]); }));
    SLUICE_RETURN_IF_ERROR(source_.health());
    return report() ? ok_status() : cancelled();
  }

 private:
  static constexpr const char* kCancelled = "packing was cancelled";
  static Status cancelled() { return {StatusCode::kCancelled, kCancelled}; }
  bool report() { return !options_.progress || options_.progress(done_.load(), total_); }
  const StoreEntry& entry(size_t i) const { return writer_.header().entries[i]; }

  Status for_each(size_t count, const std::function<Status(size_t)>& body) {
    return run_jobs(
        pool_, static_cast<int64_t>(count),
        [&](int64_t i) { return guard_mapped_reads([&] { return body(static_cast<size_t>(i)); }); },
        [&] { return report(); }, kCancelled);
  }

  Status pack_one(size_t i) {
    const PackItem& item = plan_.items[i];
    const Status status = item.values ? write_vector(i) : write_matrix(i);
    for (const auto& [data, bytes] : stored_ranges(*item.rule, item.expert))
      source_.release_pages(data, bytes);
    return status.annotate(item.where());
  }

  Status write_vector(size_t i) {
    const std::vector<float> values = plan_.items[i].values();
    const size_t bytes = values.size() * sizeof(float);
    SLUICE_RETURN_IF_ERROR(writer_.write(i, 0, values.data(), bytes));
    done_ += bytes;
    return writer_.finish(i, checksum(values.data(), bytes), {});
  }

  Status write_matrix(size_t i) {
    const PackItem& item = plan_.items[i];
    SLUICE_ASSIGN_OR_RETURN(const PackedMatrix packed,
                            pack_resolved(host_, *item.rule, item.expert, entry(i).format, how_));
    PackLoss loss;
    if (item.lossy) {
      const WeightFormat exact = item.exact;
      SLUICE_ASSIGN_OR_RETURN(const PackedMatrix reference,
                              pack_resolved(host_, *item.rule, item.expert, exact));
      loss = pack_loss(packed, reference, format_beside(packed.format));
    }
    SLUICE_RETURN_IF_ERROR(writer_.write(i, 0, packed.data, packed.bytes));
    done_ += packed.bytes;
    return writer_.finish(i, checksum(packed.data, packed.bytes),
                          {loss.error, loss.signal, loss.beside});
  }

  // A large [N, K] matrix: as many slices at a time as there are workers.
  Status pack_slices(size_t i) {
    const PackItem& item = plan_.items[i];
    const StoreEntry& e = entry(i);
    const bool panels = e.layout != WeightLayout::kRowMajor;
    const size_t step_bytes = e.bytes / static_cast<size_t>(panels ? ceil_div(e.n, kPanelColumns)
                                                                   : e.n);  // of a panel or row
    const int64_t rows_each = panels ? kPanelColumns : 1;
    const auto steps = static_cast<int64_t>(std::max<size_t>(1, kSliceBytes / step_bytes));
    const int64_t rows = steps * rows_each;
    const auto slices = static_cast<size_t>(ceil_div(e.n, rows));
    const auto together = std::min(slices, static_cast<size_t>(pool_.size()));
    const size_t slice_bytes = static_cast<size_t>(steps) * step_bytes;
    std::vector<std::vector<std::byte>> buffers(together);
    std::vector<PackLoss> losses(together);
    RunningChecksum sum;
    PackLoss loss;
    for (size_t first = 0; first < slices; first += together) {
      const size_t count = std::min(together, slices - first);
      const Status packed = for_each(count, [&](size_t b) {
        const auto at = static_cast<int64_t>(first + b) * rows;
        const RowSlice slice{at, std::min(rows, e.n - at)};
        const size_t bytes = static_cast<size_t>(ceil_div(slice.count, rows_each)) * step_bytes;
        buffers[b].assign(bytes, std::byte{0});
        SLUICE_RETURN_IF_ERROR(pack_slice(item, e, slice, buffers[b].data(), &losses[b]));
        done_ += bytes;
        return writer_.write(i, (first + b) * slice_bytes, buffers[b].data(), bytes);
      });
      SLUICE_RETURN_IF_ERROR(packed.annotate(item.where()));
      for (size_t b = 0; b < count; ++b) {
        sum.add(buffers[b].data(), buffers[b].size());
        loss.add(losses[b]);
      }
    }
    return writer_.finish(i, sum.value(), {loss.error, loss.signal, loss.beside});
  }

  Status pack_slice(const PackItem& item, const StoreEntry& e, const RowSlice& rows, std::byte* out,
                    PackLoss* loss) {
    const auto [stored, stored_bytes] = stored_range(*item.rule, rows);
    if (e.layout == WeightLayout::kRowMajor) {
      std::memcpy(out, stored, stored_bytes);
    } else {
      SLUICE_RETURN_IF_ERROR(pack_rows(*item.rule, rows, e.format, out, how_));
      if (item.lossy) SLUICE_RETURN_IF_ERROR(measure(item, e, rows, out, loss));
    }
    source_.release_pages(stored, stored_bytes);
    return ok_status();
  }

  // What a slice has lost.
  Status measure(const PackItem& item, const StoreEntry& e, const RowSlice& rows,
                 const std::byte* packed, PackLoss* loss) {
    const size_t bytes = packed_bytes(WeightFormat::kF32, WeightLayout::kPanel16, rows.count, e.k);
    SLUICE_ASSIGN_OR_RETURN(const Buffer exact, host_.allocate(bytes, "weights"));
    SLUICE_RETURN_IF_ERROR(pack_rows(*item.rule, rows, WeightFormat::kF32, exact.data()));
    PackedMatrix ours, theirs;
    ours.n = theirs.n = rows.count;
    ours.k = theirs.k = e.k;
    ours.format = e.format;
    ours.block = e.block;
    ours.data = packed;
    theirs.data = exact.data();
    *loss = pack_loss(ours, theirs, format_beside(e.format));
    return ok_status();
  }

  Device& host_;
  ThreadPool& pool_;
  const TensorSource& source_;
  const PackPlan& plan_;
  const PackOptions& options_;
  StoreWriter& writer_;
  IntPacking how_;
  std::atomic<uint64_t> done_{0};
  uint64_t total_ = 0;
};

}  // namespace

Result<PackReport> pack_store(Runtime& runtime, const std::string& model_dir,
                              const std::string& store, const PackOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  if (is_packed_store(model_dir))
    return invalid_argument("{}: is a packed store; expected the directory it was made from",
                            model_dir);
  if (options.group != 128 && options.group != 256 && options.group != kIntBlock)
    return invalid_argument("group: expected 128, 256 or 512, got {}", options.group);
  SLUICE_ASSIGN_OR_RETURN(const ModelConfig config, read_model_config(model_dir));
  SLUICE_RETURN_IF_ERROR(read_generation_defaults(model_dir, config.spec).status());
  SLUICE_ASSIGN_OR_RETURN(const auto source, open_tensor_source(model_dir));
  TensorTable table;
  config.family->declare(config.spec, table);
  const Resolution resolution = resolve(table, *source, config.quantization);
  SLUICE_RETURN_IF_ERROR(resolution.status());
  SLUICE_ASSIGN_OR_RETURN(PackPlan plan, plan_store(config.spec, resolution, options));
  plan.header.model = model_dir;
  plan.header.options = options.text();
  SLUICE_ASSIGN_OR_RETURN(
      const auto writer,
      StoreWriter::create(store, plan.header, inputs_of(*source), files_beside(model_dir)));
  SLUICE_RETURN_IF_ERROR(StorePacker(runtime, *source, plan, options, *writer).run());
  SLUICE_RETURN_IF_ERROR(writer->commit());
  PackReport report{.header = writer->header(), .resumed = writer->resumed()};
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace sluice
