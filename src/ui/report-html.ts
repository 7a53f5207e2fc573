/** The report of a verification: one self-contained page to be filed. No script, no style sheet or font from elsewhere. */
import type {Backup} from '../lib/catalog/backups.ts';
import {isRestorable} from '../lib/catalog/backups.ts';
import type {VerificationStep} from '../lib/catalog/verification.ts';
import type {Comparison} from '../lib/operations/proof.ts';
import type {VerifyResult} from '../lib/operations/verify.ts';
import {formatBytes, formatCount, formatDuration, formatTime, printableLines} from './format.ts';

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function escapeHtml(text: string): string {
  return printableLines(text).replace(/[&<>"']/g, (character) => entities[character] ?? character);
}

/** What of the HIPAA security rule this is evidence for (45 CFR 164): nothing that this test did not show. */
function evidenceRows(
  result: VerifyResult,
  keyFingerprint: string | undefined,
): [paragraph: string, evidence: string][] {
  const {steps, comparison} = result;
  const isRetrieved = steps.some(({id, status}) => id === 'integrity' && status === 'passed');
  const shown = (isShown: boolean, text: string) => (isShown ? text : 'not shown by this test.');
  return [
    [
      '164.308(a)(7)(ii)(A)',
      `Data backup plan: ${shown(isRetrieved, 'retrievable exact copies of electronic PHI exist; the copy named here was retrieved.')}`,
    ],
    [
      '164.308(a)(7)(ii)(B)',
      `Disaster recovery plan: ${shown(result.isProved, 'the procedure to restore lost data was carried out, and took the time given here.')}`,
    ],
    [
      '164.308(a)(7)(ii)(D)',
      `Testing and revision procedures: this is the record of a periodic test, with the result: ${verdict(result).word}.`,
    ],
    [
      '164.312(a)(2)(iv)',
      `Encryption and decryption: ${shown(
        isRetrieved,
        `the stored object is AES-256-GCM ciphertext, opened with ${keyFingerprint === undefined ? 'a key at hand' : `the key ${keyFingerprint}`}.`,
      )}`,
    ],
    [
      '164.312(c)(1)',
      `Integrity: ${comparison && result.isProved ? `${comparedText(comparison)}.` : shown(false, '')}`,
    ],
  ];
}

/** What of the restored copy was compared with what was backed up, and how. */
function comparedText({tablesByDigest, tablesBySize, tablesLeftOut, objects}: Comparison): string {
  const tables = (count: number) => `${formatCount(count)} ${count === 1 ? 'table' : 'tables'}`;
  const rows =
    tablesBySize + tablesLeftOut === 0
      ? 'every table of the restored copy was compared by SHA-256 with what was backed up'
      : `of the restored copy, ${tables(tablesByDigest)} compared by SHA-256 with what was backed up`;
  return [
    rows,
    ...(tablesBySize > 0 ? [`${tables(tablesBySize)} by the numbers of rows and bytes only`] : []),
    ...(tablesLeftOut > 0 ? [`the rows of ${tables(tablesLeftOut)} left out of the restore, and not compared`] : []),
    ...(objects === 'by name' ? ['definitions compared by name only'] : []),
  ].join('; ');
}

const statusWords = {passed: 'Passed', failed: 'Failed', skipped: 'Skipped'} as const;

function stepRow({title, status, note, durationMs}: VerificationStep): string {
  return `<tr><td>${escapeHtml(title)}</td><td class="${status}">${statusWords[status]}</td><td class="number">${formatDuration(durationMs)}</td><td>${escapeHtml(note)}</td></tr>`;
}

const chart = {width: 880, height: 220, left: 70, right: 16, top: 12, bottom: 36, most: 90} as const;

/** A bar for each backup, by time and size; filled by what earlier tests found. */
function timeline(backups: readonly Backup[], key: string | undefined): string {
  const shown = backups.filter(isRestorable).slice(0, chart.most).reverse();
  const [first] = shown;
  const last = shown.at(-1);
  if (!first || !last) return '<p>There are no complete backups.</p>';
  const largest = Math.max(...shown.map(({sizeBytes}) => sizeBytes), 1);
  const plotWidth = chart.width - chart.left - chart.right;
  const plotHeight = chart.height - chart.top - chart.bottom;
  const spanMs = Math.max(last.startedAt.getTime() - first.startedAt.getTime(), 1);
  const barWidth = Math.max(2, Math.min(18, plotWidth / shown.length - 2));
  const bars = shown.map((backup) => {
    const share = shown.length === 1 ? 0.5 : (backup.startedAt.getTime() - first.startedAt.getTime()) / spanMs;
    const height = Math.max(1, (plotHeight * backup.sizeBytes) / largest);
    const x = chart.left + share * (plotWidth - barWidth);
    const {verification} = backup;
    const tested = verification ? (verification.isProved ? 'proved' : 'failed') : 'plain';
    const kind = backup.key === key ? 'this' : tested;
    const note = {proved: ', proved by an earlier test', failed: ', failed in an earlier test', plain: ''}[tested];
    const label = `${formatTime(backup.startedAt)}: ${formatBytes(backup.sizeBytes)}${note}`;
    return `<rect class="${kind}" x="${x.toFixed(1)}" y="${(chart.top + plotHeight - height).toFixed(1)}" width="${barWidth.toFixed(1)}" height="${height.toFixed(1)}"><title>${escapeHtml(label)}</title></rect>`;
  });
  const base = chart.top + plotHeight;
  const day = (time: Date) => time.toISOString().slice(0, 10);
  return `<svg viewBox="0 0 ${chart.width} ${chart.height}" role="img" aria-label="Backups and their sizes over time">
<line class="axis" x1="${chart.left}" y1="${base}" x2="${chart.width - chart.right}" y2="${base}"/>
<line class="axis" x1="${chart.left}" y1="${chart.top}" x2="${chart.left}" y2="${base}"/>
<text x="${chart.left - 8}" y="${chart.top + 10}" text-anchor="end">${formatBytes(largest)}</text>
<text x="${chart.left - 8}" y="${base}" text-anchor="end">0</text>
<text x="${chart.left}" y="${base + 22}">${day(first.startedAt)}</text>
<text x="${chart.width - chart.right}" y="${base + 22}" text-anchor="end">${day(last.startedAt)}</text>
${bars.join('\n')}
</svg>
<p class="legend"><span class="swatch this"></span> this backup <span class="swatch proved"></span> proved by an earlier test <span class="swatch failed"></span> failed in an earlier test <span class="swatch plain"></span> not tested</p>`;
}

function verdict({isProved, failed, comparison}: VerifyResult): {word: string; text: string; kind: string} {
  if (failed > 0)
    return {
      word: 'Failed',
      text: 'At least one step failed. The backup must not be relied on until it is mended.',
      kind: 'failed',
    };
  if (isProved) {
    return {
      word: 'Proved',
      text:
        (comparison?.tablesBySize ?? 0) + (comparison?.tablesLeftOut ?? 0) === 0
          ? 'The backup was restored, and every table of the copy is equal to what was backed up.'
          : 'The backup was restored, and the copy is equal to what was backed up as far as it was compared (see the evidence).',
      kind: 'passed',
    };
  }
  return {word: 'Not proved', text: 'No step failed, but the backup was not restored in this test.', kind: 'skipped'};
}

/** The page. */
export function reportHtml(result: VerifyResult): string {
  const {word, text, kind} = verdict(result);
  const backup = result.backups.find(({key}) => key === result.key);
  const facts: [string, string][] = [
    ['Tested', `${formatTime(result.startedAt)} (${result.startedAt.toISOString()})`],
    ['By', `loma-backup ${result.toolVersion}`],
    ['Backup', result.key ?? 'none was found'],
    ...(backup
      ? ([
          ['Recovery point', `${formatTime(backup.startedAt)} (${backup.startedAt.toISOString()})`],
          ['Database', backup.database ?? 'not recorded'],
          [
            'Contents',
            backup.tables === undefined
              ? 'not recorded'
              : `${formatCount(backup.tables)} tables, ${formatCount(backup.rows ?? 0)} rows`,
          ],
          ['Stored size', formatBytes(backup.sizeBytes)],
          ['Encryption key', backup.keyFingerprint ?? 'not recorded'],
        ] as [string, string][])
      : []),
    [
      'Recovery time',
      result.recoveryMs === undefined
        ? 'not measured'
        : `${formatDuration(result.recoveryMs)} (restore and statistics, measured)`,
    ],
    [
      'Steps',
      `${result.total} in all, ${result.passed} passed, ${result.failed} failed, ${result.skipped} skipped, in ${formatDuration(result.durationMs)}`,
    ],
  ];
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Backup verification ${escapeHtml(result.startedAt.toISOString().slice(0, 10))}: ${word}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { border-left: 6px solid; padding: 0.6rem 1rem; background: #f4f6f8; }
.verdict strong { font-size: 1.2rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.6rem; border-bottom: 1px solid #d7dde4; }
td:last-child { overflow-wrap: anywhere; }
th { white-space: nowrap; font-weight: 600; } .number { text-align: right; white-space: nowrap; }
.passed { color: #14693a; } .failed { color: #a3161a; } .skipped { color: #6a5a00; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: #46515e; } .axis { stroke: #8894a1; }
rect.plain { fill: #b8c4d0; } rect.proved { fill: #3c7d5b; } rect.failed { fill: #a3161a; } rect.this { fill: #1f5fa8; }
.legend { color: #46515e; font-size: 0.9rem; } .swatch { display: inline-block; width: 0.8rem; height: 0.8rem; margin-left: 0.8rem; }
.swatch.plain { background: #b8c4d0; } .swatch.proved { background: #3c7d5b; } .swatch.failed { background: #a3161a; } .swatch.this { background: #1f5fa8; }
@media print { body { margin: 0; max-width: none; } }
</style>
</head>
<body>
<h1>Backup verification</h1>
<p class="verdict ${kind}"><strong>${word}.</strong> ${text}</p>
<h2>What was tested</h2>
<table>${facts.map(([name, value]) => `<tr><th scope="row">${escapeHtml(name)}</th><td>${escapeHtml(value)}</td></tr>`).join('\n')}</table>
<h2>Steps</h2>
<table>
<tr><th scope="col">Step</th><th scope="col">Result</th><th scope="col" class="number">Duration</th><th scope="col">Found</th></tr>
${result.steps.map(stepRow).join('\n')}
</table>
${result.warnings.length > 0 ? `<h2>Warnings</h2>\n<ul>${result.warnings.map((warning) => `<li>${escapeHtml(warning)}</li>`).join('\n')}</ul>` : ''}
<h2>Backups over time</h2>
${timeline(result.backups, result.key)}
<h2>Evidence for (HIPAA security rule, 45 CFR)</h2>
<table>${evidenceRows(result, backup?.keyFingerprint)
    .map(([paragraph, evidence]) => `<tr><th scope="row">${paragraph}</th><td>${escapeHtml(evidence)}</td></tr>`)
    .join('\n')}</table>
</body>
</html>
`;
}
