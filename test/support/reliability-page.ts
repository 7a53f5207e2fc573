/** docs/RELIABILITY.md: one section an area, each with the run that it comes from. A run replaces the sections that it knows. */
export interface Trial {
  /** The section it belongs to: `Faults of the store during a backup`. */
  area: string;
  /** What was done to the program: `503 for one part`. */
  what: string;
  /** What happened, as the test has checked it: `the backup succeeded`. */
  outcome: string;
}

export interface RecordedTrial extends Trial {
  /** The test file, from the project's root. */
  file: string;
}

/** Where trials are kept until the end of the run, as JSON lines; set by the reporter. */
export const trialsVariable = 'LOMA_TEST_TRIALS';

export interface RunFacts {
  /** `2026-11-24` */
  date: string;
  seed: string;
  /** `Node.js 26.10.0, PostgreSQL 15.14, Swift`. */
  versions: string;
}

const introduction = `# Reliability: what was tried, and what happened

Written by \`npm run test:faults\`, which does to the program what the world will do, on real servers: a row stands for one or more
trials whose outcome the test has checked. \`npm test\` runs a sample of the same cases, chosen by a seed that it prints
(\`LOMA_TEST_SEED\` sets it). Do not edit: run it. A run of some files only (\`npm run test:faults -- test/faults/secrets\`) replaces
their sections and leaves the others.
`;

/** @param old the page as it is, or an empty text */
export function reliabilityPage(old: string, trials: readonly RecordedTrial[], facts: RunFacts): string {
  const sections = new Map(sectionsOf(old));
  for (const [area, group] of Map.groupBy(trials, ({area}) => area)) sections.set(area, section(group, facts));
  const sorted = [...sections].toSorted(([a], [b]) => (a < b ? -1 : 1));
  return [introduction, ...sorted.map(([area, text]) => `## ${area}\n\n${text.trim()}\n`)].join('\n');
}

function sectionsOf(page: string): [string, string][] {
  return page
    .split(/^## /m)
    .slice(1)
    .map((text) => {
      const [area = '', ...lines] = text.split('\n');
      return [area, lines.join('\n')];
    });
}

function section(trials: readonly RecordedTrial[], {date, seed, versions}: RunFacts): string {
  const files = [...new Set(trials.map(({file}) => file))].toSorted();
  const rows = Map.groupBy(trials, ({what, outcome}) => `| ${cell(what)} | ${cell(outcome)} |`);
  return [
    `\`npm run test:faults -- ${files.join(' ')}\`, ${date}; ${versions}; seed ${seed}.`,
    '',
    '| what was tried | what happened | trials |',
    '|---|---|---:|',
    ...[...rows].map(([row, same]) => `${row} ${same.length} |`),
  ].join('\n');
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll(/\s+/g, ' ').trim();
}
