import {formatTime} from './format.ts';

const form =
  /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)? *([A-Z]{1,5}(?:[+-]\d{1,2}(?::?\d\d)?)?|[+-]\d\d:?\d\d)?$/i;

/** A date without a time of day: it may mean the beginning of the day or its end. */
export const dateAlone = Symbol('a date alone');

/**
 * The last moment of a time that a person typed: of the minute, when no seconds are given, as `list` shows times. ISO 8601, or as
 * `formatTime` prints it; local time without a zone. Undefined when there is no such time, such as 30 February.
 */
export function parseTime(text: string): Date | typeof dateAlone | undefined {
  const match = form.exec(text.trim());
  if (!match) return undefined;
  const [, year = '', month = '', day = '', hour, minute = '', second, fraction = '', zone = ''] = match;
  if (!isDay(Number(year), Number(month), Number(day))) return undefined;
  if (hour === undefined) return dateAlone;
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second ?? 0) > 59) return undefined;
  const time = inZone(`${year}-${month}-${day} ${hour}:${minute}`, zone);
  if (!time) return undefined;
  const rest = second === undefined ? 59_999 : Number(second) * 1000 + Number(fraction.padEnd(3, '9').slice(0, 3));
  return new Date(time.getTime() + rest);
}

/** `Date` takes 30 February for 2 March. */
function isDay(year: number, month: number, day: number): boolean {
  const date = new Date(Date.UTC(year, month - 1, day));
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
}

function inZone(minute: string, zone: string): Date | undefined {
  const time = new Date(`${minute} ${zone}`);
  if (!Number.isNaN(time.getTime())) return time;
  // `Date` knows the names of few zones; the local one goes by the name that `formatTime` gives it. An hour is there twice in autumn.
  const first = new Date(minute);
  const second = new Date(first.getTime() + 3_600_000);
  return [first, second].find((local) => formatTime(local) === `${minute} ${zone.toUpperCase()}`);
}
