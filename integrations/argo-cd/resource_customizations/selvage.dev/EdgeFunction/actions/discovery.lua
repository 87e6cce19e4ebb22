-- Only actions that act now are enabled.
local status = obj.status or {}
local rollout = status.rollout or {}
local state = rollout.state
local runs = status.candidate ~= nil
local paused = rollout.paused ~= nil
local hold = rollout.hold and rollout.hold.reason

-- A weight rises only while the operator knows what the spec asks for.
local known = true
for _, condition in ipairs(status.conditions or {}) do
  local decides = condition.type == "Accepted" or condition.type == "Resolved" or condition.type == "Compatible"
  if decides and condition.status ~= "True" then
    known = false
  end
end

local awaitsApproval = false
for _, what in ipairs(rollout.waitingFor or {}) do
  if what == "Approval" then
    awaitsApproval = true
  end
end

local mayRise = runs and known and not paused and hold ~= "Suspended" and hold ~= "NoNodes"
local first = rollout.plan ~= nil and rollout.plan.kind == "First"
local rejected = rollout.rejected ~= nil and (state == "RolledBack" or state == "Failed")

local actions = {}
actions["promote"] = {
  ["disabled"] = not (mayRise and (state == "Queued" or state == "Stepping" or state == "Baking")),
  ["displayName"] = "Promote: end the current step"
}
actions["promote-full"] = {
  ["disabled"] = not (mayRise and not first and (state == "Queued" or state == "Stepping")),
  ["displayName"] = "Promote fully: start the bake"
}
actions["abort"] = {
  ["disabled"] = not runs,
  ["displayName"] = "Abort: return to stable"
}
actions["approve"] = {
  ["disabled"] = not (runs and awaitsApproval),
  ["displayName"] = "Approve: pass the gate"
}
actions["retry"] = {
  ["disabled"] = not (rejected and known),
  ["displayName"] = "Retry: roll out again"
}
actions["pause"] = {
  ["disabled"] = not runs or paused,
  ["displayName"] = "Pause: keep the weight"
}
actions["resume"] = {
  ["disabled"] = not (runs and (paused or hold == "TotalErrors")),
  ["displayName"] = "Resume: let the weight rise"
}
return actions
