--@include window
local told = {}
for at, period in ipairs({"day", "month"}) do
  for nth, now_us in ipairs(ARGV) do
    local number, ends_us = window_of(period, tonumber(now_us))
    told[#told + 1] = string.format("%.0f %.0f", number, ends_us)
  end
end
return told
