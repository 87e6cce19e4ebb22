local candidate = obj.status and obj.status.candidate
if candidate == nil then
  error("no rollout runs")
end
-- The version of the object makes each value new: the operator handles a value once.
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["selvage.dev/promote-full"] = candidate.revision .. "/" .. obj.metadata.resourceVersion
return obj
