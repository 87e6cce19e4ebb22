local health = {}
local status = obj.status or {}
local loaded
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Loaded" then
    loaded = condition
  end
end

if loaded == nil then
  health.status = "Progressing"
  health.message = "No node has reported this revision yet."
  return health
end
health.message = loaded.message
if loaded.status == "True" or loaded.reason == "NotServed" then
  health.status = "Healthy"
elseif status.nodes ~= nil and status.nodes.failed > 0 then
  health.status = "Degraded"
else
  health.status = "Progressing"
end
return health
