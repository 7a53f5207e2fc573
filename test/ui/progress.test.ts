import {Writable} from 'node:stream';
import {afterEach, expect, jest, test} from '@jest/globals';
import {ProgressView} from '../../src/ui/progress.ts';
import {waitUntil} from '../support/wait-until.ts';

afterEach(() => {
  jest.restoreAllMocks();
});

/** A log of CI: no terminal. */
function log() {
  let text = '';
  const stream = new Writable({
    write(chunk, _encoding, done) {
      text += chunk;
      done();
    },
  });
  return {stream: stream as unknown as NodeJS.WriteStream, text: () => text};
}

test('where there is no terminal: plain lines, ten seconds apart, with bytes, files, rate and time left', async () => {
  let now = 1000;
  jest.spyOn(performance, 'now').mockImplementation(() => now);
  const {stream, text} = log();
  const view = new ProgressView([{id: 'files', title: 'Encrypt and upload'}], stream, (each) => each);
  view.observer({type: 'started', step: 'files'});
  await waitUntil(() => Promise.resolve(text().includes('Encrypt and upload')), {what: 'the step to be shown'});
  const totals = {type: 'progress', step: 'files', totalBytes: 120e6, totalItems: 12} as const;
  now += 9000;
  view.observer({...totals, bytes: 27e6, items: 2});
  now += 1000;
  view.observer({...totals, bytes: 30e6, items: 3});
  await waitUntil(() => Promise.resolve(text().includes('left')), {what: 'progress to be shown'});
  now += 1000;
  view.observer({...totals, bytes: 33e6, items: 3});
  view.observer({type: 'finished', step: 'files', note: '12 files'});
  await view.close('finished');
  expect(text()).toContain('3 of 12 files, 30.0 MB of 120 MB, 3.00 MB/s, 10.0 s, 30.0 s left');
  expect(text().match(/left/g)).toHaveLength(1);
  expect(text()).toContain('Encrypt and upload: 12 files, 33.0 MB, 3.00 MB/s, 11.0 s');
  // No cursor is moved, and nothing coloured.
  expect(text()).not.toContain('\u001b[');
});

test('a group of steps that failed is not ticked off', async () => {
  const steps = ['dump', 'upload'].map((id) => ({id, title: `Step ${id}`, group: 'Back up'}));
  for (const outcome of ['failed', 'finished'] as const) {
    const {stream, text} = log();
    const view = new ProgressView(steps, stream, (each) => each);
    for (const {id} of steps) view.observer({type: 'started', step: id});
    view.observer({type: 'finished', step: 'dump'});
    await view.close(outcome);
    const lines = text().split('\n');
    const marks = (title: string) => lines.filter((line) => line.includes(title)).map((line) => line.trim()[0]);
    expect(marks('Step dump').at(-1)).toBe('✔');
    expect(marks('Step upload').at(-1)).toBe(outcome === 'failed' ? '✖' : '✔');
    expect(marks('Back up').includes('✔')).toBe(outcome === 'finished');
  }
});
