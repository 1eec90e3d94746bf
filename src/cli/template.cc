#include "cli/template.h"

#include "base/json.h"
#include "text/chat_json.h"

namespace sluice {
namespace {

constexpr size_t kMaxConfigBytes = 16u << 20;
constexpr size_t kMaxMessagesBytes = 64u << 20;

}  // namespace

Status run_template(const TemplateOptions& options, std::ostream& out) {
  const std::string config_path = options.model + "/config.json";
  SLUICE_ASSIGN_OR_RETURN(const nlohmann::json config,
                          read_json_file(config_path, kMaxConfigBytes));
  const auto model_type = config.is_object() ? config.find("model_type") : config.end();
  if (model_type == config.end() || !model_type->is_string())
    return data_loss("{}: no \"model_type\"", config_path);
  const auto format = chat_format_of(model_type->get_ref<const std::string&>());
  if (!format.ok()) return format.status().annotate(config_path);
  SLUICE_ASSIGN_OR_RETURN(const std::string text,
                          read_text_file(options.messages, kMaxMessagesBytes));
  SLUICE_ASSIGN_OR_RETURN(const ChatRequest request, parse_chat_request(text, options.messages));
  const auto prompt = render_chat(*format, request);
  if (!prompt.ok()) return prompt.status().annotate(options.messages);
  out << prompt->to_string();
  return out ? ok_status() : io_error("writing the output failed");
}

}  // namespace sluice
