local candidate = obj.status and obj.status.candidate
if candidate == nil then
  error("no rollout runs")
end
local value = candidate.revision
-- Names the step, so that two people who press at once do not end two steps.
if obj.status.rollout.state == "Stepping" then
  value = value .. "/step-" .. obj.status.rollout.step
end
-- The version of the object makes each value new: the operator handles a value once.
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["selvage.dev/approve"] = value .. "/" .. obj.metadata.resourceVersion
return obj
