--@include gcra
--@include window
--@include bound
--@include scope
--@include lease
--@include ask
--@include take
local scopes = {scope("", ""), scope("", ""), scope("", ""), scope("", "")}
bind_all(scopes, ARGV[1], ARGV[2], ARGV[3], ARGV[4])
local told = {}
for at, k in ipairs(scopes) do
  local bounds = {}
  for nth, is in ipairs(k.bounds) do
    bounds[nth] = {is.field, is.letter, is.period, is.limit, is.burst, is.shadow and 1 or 0}
  end
  told[at] = {k.output_cap or -1, bounds}
end
return told
