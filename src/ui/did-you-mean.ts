import {distance} from 'fastest-levenshtein';

/** The name that was probably meant, if one is near enough: up to half of its letters may be wrong, and at most three. */
export function closest(typed: string, names: readonly string[]): string | undefined {
  const [best] = names
    .map((name) => ({name, slips: distance(typed.toLowerCase(), name)}))
    .filter(({name, slips}) => slips <= Math.min(3, Math.floor(name.length / 2)))
    .sort((a, b) => a.slips - b.slips);
  return best?.name;
}
