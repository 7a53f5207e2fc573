/** Databases that Debian's packages bring along, and PostgreSQL's own test database, as SQL. The packages are unpacked, not installed. */
import {mkdir, readdir, readFile, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {promisify} from 'node:util';
import {gunzip} from 'node:zlib';
import {execa} from 'execa';

const sourcesFolder = '/etc/apt/sources.list.d';

/**
 * The files of a package, or of their compressed forms, one after another.
 * @param folder where the package is unpacked
 * @param files from the root of the package
 */
export async function sqlOfPackage(folder: string, name: string, files: readonly string[]): Promise<string> {
  const place = path.join(folder, name);
  await mkdir(place, {recursive: true});
  await execa('apt-get', ['download', '-q', name], {cwd: place});
  const [archive] = (await readdir(place)).filter((file) => file.endsWith('.deb'));
  if (!archive) throw new Error(`apt-get downloaded no package ${name}`);
  await execa('dpkg-deb', ['-x', archive, 'content'], {cwd: place});
  const texts = files.map(async (file) => {
    const bytes = await readFile(path.join(place, 'content', file));
    return (file.endsWith('.gz') ? await promisify(gunzip)(bytes) : bytes).toString();
  });
  return (await Promise.all(texts)).join('\n');
}

/**
 * Unpacks PostgreSQL's regression tests, from the source package of the server that is installed.
 * @returns the folder that holds `parallel_schedule`, `sql` and `data`
 */
export async function regressionTests(folder: string, major: number): Promise<string> {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: it is dpkg-query that reads it
  const version = ['-W', '-f', '${source:Version}', `postgresql-${major}`];
  const {stdout: sourceVersion} = await execa('dpkg-query', version);
  await Promise.all(['lists', 'sources'].map((name) => mkdir(path.join(folder, name), {recursive: true})));
  // The machine's own sources, asked for source packages; nothing of the machine's is changed.
  for (const name of (await readdir(sourcesFolder)).filter((file) => file.endsWith('.sources'))) {
    const text = await readFile(path.join(sourcesFolder, name), 'utf8');
    await writeFile(path.join(folder, 'sources', name), text.replaceAll(/^Types: .*$/gm, 'Types: deb-src'));
  }
  const options = [
    '-qq',
    ...['Etc::sourcelist=/dev/null', `Etc::sourceparts=${folder}/sources`, `State::lists=${folder}/lists`].flatMap(
      (setting) => ['-o', `Dir::${setting}`],
    ),
  ];
  await execa('apt-get', [...options, 'update']);
  const source = `postgresql-${major}=${sourceVersion}`;
  await execa('apt-get', [...options, 'source', '--download-only', source], {cwd: folder});
  const [archive] = (await readdir(folder)).filter((file) => /\.orig\.tar\.\w+$/.test(file));
  if (!archive) throw new Error(`apt-get downloaded no source of ${source}`);
  const inside = 'src/test/regress';
  await execa('tar', ['-xf', archive, '--strip-components=1', '--wildcards', `*/${inside}/*`], {cwd: folder});
  return path.join(folder, inside);
}
