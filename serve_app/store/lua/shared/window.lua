-- Twin: serve_app/limits/window.py. A window of the calendar, in UTC, is {number, used}.
local DAY_US = 86400000000

-- The number of the day or month that `now_us` lies in, and when it ends. Months begin in March of
-- the year 0, so that the day that a year may have more is the last of it (Hinnant, chrono-Compatible
-- Low-Level Date Algorithms).
local function window_of(period, now_us)
  local day = math.floor(now_us / DAY_US)
  if period == "day" then
    return day, (day + 1) * DAY_US
  end
  local era = math.floor((day + 719468) / 146097)
  local doe = day + 719468 - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524)
                          - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local month = (era * 400 + yoe) * 12 + math.floor((5 * doy + 2) / 153)
  local year, nth = math.floor((month + 1) / 12), (month + 1) % 12
  local first = 365 * year + math.floor(year / 4) - math.floor(year / 100)
                + math.floor(year / 400) + math.floor((153 * nth + 2) / 5) - 719468
  return month, first * DAY_US
end

local function read_window(text, period, now_us)
  local number, ends_us = window_of(period, now_us)
  local was, used = string.match(text or "", "^(%d+) (%d+)$")
  return {number = number, ends_us = ends_us, used = tonumber(was) == number and tonumber(used) or 0}
end

local function window_text(is)
  return string.format("%.0f %.0f", is.number, is.used)
end

-- What a window says to `units`; nothing is taken.
local function ask_window(window, bound, units, now_us)
  local fits = units == 0 or window.used + units <= bound.limit
  local left = math.max(bound.limit - window.used - (fits and units or 0), 0)
  local ends_in_us = window.ends_us - now_us
  return {left = left, wait_us = fits and 0 or ends_in_us, reset_us = ends_in_us}
end
