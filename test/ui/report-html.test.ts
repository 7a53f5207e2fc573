import {execFile} from 'node:child_process';
import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {promisify} from 'node:util';
import {beforeAll, describe, expect, it} from '@jest/globals';
import type {Backup} from '../../src/lib/catalog/backups.ts';
import {backupKey} from '../../src/lib/catalog/key-names.ts';
import type {VerifyResult} from '../../src/lib/operations/verify.ts';
import {reportHtml} from '../../src/ui/report-html.ts';
import {ensurePrograms} from '../support/packages.ts';

function backupOf(day: number, changes: Partial<Backup> = {}): Backup {
  const startedAt = new Date(Date.UTC(2026, 2, day, 2));
  return {
    key: backupKey(startedAt, 'gzip'),
    startedAt,
    compression: 'gzip',
    state: 'complete',
    problem: undefined,
    sizeBytes: 1_000_000 * day,
    database: 'clinic <prod>',
    label: 'scheduled',
    isHeld: false,
    tables: 12,
    rows: 34_567,
    dumpBytes: 1,
    durationMs: 1,
    keyFingerprint: '0123456789abcdef',
    excludedTableData: [],
    seal: 'verified',
    verification: day === 1 ? {at: startedAt, isProved: true} : undefined,
    objectKeys: [],
    ...changes,
  };
}

const backups = Array.from({length: 30}, (_, index) => backupOf(30 - index));

function result(changes: Partial<VerifyResult> = {}): VerifyResult {
  return {
    key: backups[0]?.key,
    startedAt: new Date('2026-03-31T04:00:00Z'),
    durationMs: 65_000,
    steps: [
      {id: 'store', title: 'R2 configuration', status: 'passed', note: 'wrote and deleted a probe', durationMs: 120},
      {id: 'backup', title: 'Backup creation', status: 'skipped', note: 'not asked for', durationMs: 0},
      {id: 'integrity', title: 'Integrity', status: 'passed', note: '12 tables', durationMs: 4_000},
      {
        id: 'restore',
        title: 'Restore and proof',
        status: 'passed',
        note: 'table "<b>x</b>" & others',
        durationMs: 60_000,
      },
    ],
    total: 4,
    passed: 3,
    failed: 0,
    skipped: 1,
    isProved: true,
    comparison: {tablesByDigest: 12, tablesBySize: 0, tablesLeftOut: 0, rows: 34_567, objects: 'as a whole'},
    recoveryMs: 42_000,
    toolVersion: '1.2.3',
    backups,
    warnings: [],
    ...changes,
  };
}

describe('the report', () => {
  it('asks nobody for anything: no script, no address, nothing to load', () => {
    const html = reportHtml(result());
    expect(html).not.toMatch(/<script|<link|<img|<iframe|@import|url\(|https?:|javascript:| on\w+=/i);
    expect(html).toContain(`default-src 'none'`);
  });

  it('shows names from the database as text, never as markup', () => {
    const html = reportHtml(result({warnings: ['<svg onload=alert(1)>']}));
    expect(html).toContain('clinic &lt;prod&gt;');
    expect(html).toContain('table &quot;&lt;b&gt;x&lt;/b&gt;&quot; &amp; others');
    expect(html).toContain('&lt;svg onload=alert(1)&gt;');
  });

  it('is about an empty bucket, too', () => {
    expect(reportHtml(result({key: undefined, backups: [], isProved: false, failed: 1}))).toContain(
      'There are no complete backups',
    );
  });
});

describe('the evidence', () => {
  const rowsOf = (changes: Partial<VerifyResult>) =>
    Object.fromEntries(
      [...reportHtml(result(changes)).matchAll(/<tr><th scope="row">(164[^<]*)<\/th><td>([^<]*)<\/td>/g)].map(
        ([, paragraph = '', text = '']) => [paragraph, text],
      ),
    );
  const withStatus = (id: string, status: VerifyResult['steps'][number]['status']) =>
    result().steps.map((step) => (step.id === id ? {...step, status} : step));
  const none = /: not shown by this test\.$/;

  it('of a proved backup is all there', () => {
    const rows = rowsOf({});
    expect(Object.values(rows)).toHaveLength(5);
    expect(Object.values(rows).filter((text) => none.test(text))).toEqual([]);
    expect(rows['164.308(a)(7)(ii)(D)']).toContain('with the result: Proved.');
    expect(rows['164.312(a)(2)(iv)']).toContain('opened with the key 0123456789abcdef');
    expect(rows['164.312(c)(1)']).toContain('every table of the restored copy was compared by SHA-256');
  });

  it('of one that was not restored is that it was retrieved and opened', () => {
    const rows = rowsOf({isProved: false, comparison: undefined, steps: withStatus('restore', 'skipped')});
    expect(rows['164.308(a)(7)(ii)(A)']).toContain('was retrieved');
    expect(rows['164.308(a)(7)(ii)(B)']).toMatch(none);
    expect(rows['164.308(a)(7)(ii)(D)']).toContain('with the result: Not proved.');
    expect(rows['164.312(a)(2)(iv)']).toContain('AES-256-GCM');
    expect(rows['164.312(c)(1)']).toMatch(none);
  });

  it.each([
    ['is bad', {}],
    ['was not found', {key: undefined, backups: []}],
  ])('of one that %s is only that it was tested', (_, changes) => {
    const failed = {isProved: false, failed: 1, comparison: undefined, steps: withStatus('integrity', 'failed')};
    const {'164.308(a)(7)(ii)(D)': tested, ...rows} = rowsOf({...failed, ...changes});
    expect(tested).toContain('with the result: Failed.');
    expect(Object.values(rows)).toHaveLength(4);
    for (const text of Object.values(rows)) expect(text).toMatch(none);
  });

  it('says what was compared in another way, and what was not', () => {
    const comparison = {tablesByDigest: 9, tablesBySize: 2, tablesLeftOut: 1, rows: 9, objects: 'by name'} as const;
    expect(rowsOf({comparison})['164.312(c)(1)']).toBe(
      'Integrity: of the restored copy, 9 tables compared by SHA-256 with what was backed up; ' +
        '2 tables by the numbers of rows and bytes only; the rows of 1 table left out of the restore, and not compared; ' +
        'definitions compared by name only.',
    );
    expect(reportHtml(result({comparison}))).toContain('as far as it was compared');
  });
});

describe('the report in a browser', () => {
  const run = promisify(execFile);
  // Without these, it looks for its maker's servers; --no-sandbox: it refuses to start as root.
  const flags = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ];

  beforeAll(() => ensurePrograms(['chromium']), 300_000);

  async function rendered(html: string): Promise<string> {
    const folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-report-'));
    try {
      const file = path.join(folder, 'report.html');
      // What a reader sees is taken out by a script of the test's own, which the page itself would not allow.
      const probe = `<script>document.title = JSON.stringify({
        text: document.body.innerText,
        bars: [...document.querySelectorAll('svg rect')].map((bar) => {
          const {width, height, top, bottom} = bar.getBoundingClientRect();
          return {width, height, top, bottom, fill: getComputedStyle(bar).fill};
        }),
        wide: document.documentElement.scrollWidth > innerWidth,
      })</script></body>`;
      await writeFile(file, html.replace(/<meta http-equiv[^>]*>/, '').replace('</body>', probe));
      const args = [...flags, `--user-data-dir=${path.join(folder, 'profile')}`, '--dump-dom', `file://${file}`];
      const {stdout} = await run('chromium', args, {maxBuffer: 10_000_000, timeout: 60_000});
      return (
        /<title>(.*?)<\/title>/s
          .exec(stdout)?.[1]
          ?.replaceAll('&lt;', '<')
          .replaceAll('&gt;', '>')
          .replaceAll('&amp;', '&') ?? ''
      );
    } finally {
      await rm(folder, {recursive: true, force: true});
    }
  }

  it('shows what was tested, with which result, how long recovery took, and a bar for each backup', async () => {
    const {text, bars, wide} = JSON.parse(await rendered(reportHtml(result())));
    expect(text).toContain('Proved.');
    expect(text).toContain('loma-backup 1.2.3');
    expect(text).toContain('2026-03-31T04:00:00.000Z');
    expect(text).toContain('42.0 s (restore and statistics, measured)');
    expect(text).toContain('12 tables, 34,567 rows');
    expect(text).toContain('4 in all, 3 passed, 0 failed, 1 skipped');
    expect(text).toContain('164.308(a)(7)(ii)(D)');
    expect(text).toContain('clinic <prod>');
    expect(bars).toHaveLength(30);
    expect(wide).toBe(false);
    // The bars stand on one line, each higher than the one before; the tested and the proved one differ in colour.
    const heights = bars.map(({height}: {height: number}) => height);
    expect(heights).toEqual(heights.toSorted((a: number, b: number) => a - b));
    expect(
      Math.max(...bars.map(({bottom}: {bottom: number}) => bottom)) -
        Math.min(...bars.map(({bottom}: {bottom: number}) => bottom)),
    ).toBeLessThan(1);
    expect(new Set(bars.map(({fill}: {fill: string}) => fill)).size).toBe(3);
  }, 120_000);
});
