-- Twin: serve_app/limits/window.py. A window of the calendar, in UTC, has {used, number}.
local DAY_US = 86400000000

-- The number of the month that the day lies in, and the day on which it ends. Months begin in March
-- of the year 0, so that the day that a year may have more is the last of it (Hinnant, chrono-Compatible
-- Low-Level Date Algorithms).
local function month_of(day)
  local floor = math.floor
  local era = floor((day + 719468) / 146097)
  local doe = day + 719468 - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local month = (era * 400 + yoe) * 12 + floor((5 * doy + 2) / 153)
  local year, nth = floor((month + 1) / 12), (month + 1) % 12
  return month, 365 * year + floor(year / 4) - floor(year / 100) + floor(year / 400)
                + floor((153 * nth + 2) / 5) - 719468
end

-- The number of the day or month that `now_us` lies in, and when it ends.
local function window_of(period, now_us)
  local day = math.floor(now_us / DAY_US)
  if period == "day" then
    return day, (day + 1) * DAY_US
  end
  local month, ends = month_of(day)
  return month, ends * DAY_US
end

-- What a window of which `used` units are gone says to `units`: what is left, how long to wait.
local function ask_window(used, bound, units, ends_in_us)
  local left = bound.limit - used
  if units == 0 or units <= left then
    return math.max(left - units, 0), 0, ends_in_us
  end
  return math.max(left, 0), ends_in_us, ends_in_us
end
