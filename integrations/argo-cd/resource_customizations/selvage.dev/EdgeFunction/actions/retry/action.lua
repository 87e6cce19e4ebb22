local rejected = obj.status and obj.status.rollout and obj.status.rollout.rejected
if rejected == nil then
  error("no revision was rolled back")
end
-- The version of the object makes each value new: the operator handles a value once.
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["selvage.dev/retry"] = rejected.revision .. "/" .. obj.metadata.resourceVersion
return obj
