-- Runs with the base and table libraries of Lua alone: there is no string library in Argo CD's sandbox.
local health = {}
local status = obj.status

-- The status of an earlier spec says nothing about this one.
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  health.status = "Progressing"
  health.message = "The operator has not read this spec yet."
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function isTrue(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

-- Whether a person must act before the rollout continues.
local function waitsForPerson()
  local rollout = status.rollout
  if status.candidate == nil or rollout == nil then
    return false
  end
  if rollout.paused ~= nil then
    return true
  end
  for _, what in ipairs(rollout.waitingFor or {}) do
    if what == "Approval" then
      return true
    end
  end
  -- The third time, the error backstop holds until the action resume.
  return rollout.hold ~= nil and rollout.hold.reason == "TotalErrors" and (rollout.backstops or 0) >= 3
end

health.message = status.message
if isTrue("Stalled") then
  health.status = "Degraded"
elseif status.phase == "Suspended" or waitsForPerson() then
  health.status = "Suspended"
elseif isTrue("Ready") then
  health.status = "Healthy"
else
  health.status = "Progressing"
end
return health
