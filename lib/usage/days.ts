// Days, in the time zone of this process: that of the parent is the host's.

/** 2026-11-28 */
export function dayOf(at: number): string {
  const date = new Date(at);
  const two = (number: number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${
    two(date.getDate())
  }`;
}

/** The day that is this many days later, or earlier. */
export function dayAfter(day: string, days: number): string {
  const [year = 0, month = 1, date = 1] = day.split("-").map(Number);
  return dayOf(new Date(year, month - 1, date + days, 12).getTime());
}

/** The Monday of a day's week. */
export function mondayOf(day: string): string {
  const [year = 0, month = 1, date = 1] = day.split("-").map(Number);
  const weekday = new Date(year, month - 1, date, 12).getDay();
  return dayAfter(day, -((weekday + 6) % 7));
}

/** 03:00, or with its date if it is of another day. */
export function clockText(at: number, now: number): string {
  const date = new Date(at);
  const two = (number: number) => String(number).padStart(2, "0");
  const time = `${two(date.getHours())}:${two(date.getMinutes())}`;
  return dayOf(at) === dayOf(now) ? time : `${dayOf(at)} ${time}`;
}
