//! Checks the pages of the documentation: that links lead somewhere, that the menu is complete, and that lists look the same
//! on Git hosts and on the site.

use crate::tree::{files, read, root};
use std::collections::{BTreeMap, BTreeSet};

/// Returns the Markdown files of the repository.
fn pages() -> BTreeMap<String, String> {
    let paths = files().into_iter().filter(|path| path.ends_with(".md"));
    let found: BTreeMap<_, _> = paths.map(|path| (path.clone(), read(&path))).collect();
    assert!(found.len() > 20, "found only {} pages", found.len());
    found
}

/// Returns the lines of a page that are not in a block of code, with their numbers.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    page.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        (!fence && !in_code).then_some((at + 1, line))
    })
}

/// Returns a line without the code in it.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// Returns the anchors of the headings of a page as Git hosts build them: lower case, spaces become '-', other punctuation
/// is dropped. A heading that appears twice has no anchor that the site has as well.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    for (_, line) in prose(page) {
        let Some((_, heading)) = line
            .split_once("# ")
            .filter(|(marks, _)| marks.chars().all(|c| c == '#'))
        else {
            continue;
        };
        // of a link in a heading, the text counts
        let mut parts = heading.split("](");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            text.push_str(part.split_once(')').map_or(part, |(_, rest)| rest));
        }
        let kept = text.trim().to_lowercase();
        let kept = kept
            .chars()
            .filter(|&c| c.is_alphanumeric() || " -_".contains(c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        *seen.entry(anchor).or_insert(0) += 1;
    }
    let once = seen.into_iter().filter(|&(_, count)| count == 1);
    once.map(|(anchor, _)| anchor).collect()
}

/// Returns the targets of the links of a page with their lines.
fn links(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, line) in prose(page) {
        let line = without_code(line);
        let targets = line
            .split("](")
            .skip(1)
            .filter_map(|rest| Some(rest.split_once(')')?.0));
        found.extend(targets.map(|target| (at, target.to_owned())));
    }
    found
}

/// Returns the path of a link's target from the root of the repository, or `None` if it is outside.
fn resolve(page: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()?),
            "" | "." => {}
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let pages = pages();
    let mut wrong = Vec::new();
    for (path, page) in &pages {
        for (line, link) in links(page) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if target.is_empty() {
                Some(path.clone())
            } else {
                resolve(path, target)
            };
            let exists = target
                .as_ref()
                .is_some_and(|target| root().join(target).exists());
            let page = target.and_then(|target| pages.get(&target));
            if !exists
                || !(anchor.is_empty() || page.is_some_and(|page| anchors(page).contains(anchor)))
            {
                wrong.push(format!("{path}:{line}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// docs/README.md is the menu of the site: the first link of each row of its tables.
#[test]
fn the_menu_has_every_page_of_docs_once() {
    let menu = read("docs/README.md");
    let rows = prose(&menu).filter(|(_, line)| line.starts_with("| ["));
    let mut listed: Vec<String> = rows
        .filter_map(|(_, line)| Some(links(line).first()?.1.clone()))
        .collect();
    listed.sort();
    let mut pages: Vec<String> = files()
        .iter()
        .filter_map(|path| Some(path.strip_prefix("docs/")?.to_owned()))
        .filter(|path| path.ends_with(".md") && path != "README.md")
        .collect();
    pages.sort();
    assert_eq!(listed, pages);
}

/// The site reads what belongs to a list by an indentation of four spaces; Git hosts accept it as well.
#[test]
fn what_belongs_to_a_list_is_indented_by_four_spaces() {
    let mut wrong = Vec::new();
    for (path, page) in pages() {
        let mut empty_before = true;
        let mut in_code = false;
        for (at, line) in page.lines().enumerate() {
            let text = line.trim_start();
            let indent = line.len() - text.len();
            let fence = text.starts_with("```");
            let starts = fence || text.starts_with("* ") || text.starts_with("- ") || empty_before;
            if !in_code && indent % 4 != 0 && starts && !text.is_empty() {
                wrong.push(format!("{path}:{}: {text}", at + 1));
            }
            in_code ^= fence;
            empty_before = text.is_empty();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Both find the address of a node in the same way.
#[test]
fn the_tutorial_has_commands_of_readme() {
    let (tutorial, readme) = (read("docs/tutorial.md"), read("README.md"));
    let starts = ["port=", "node=", "seq "];
    let mut found = 0;
    for line in tutorial.lines() {
        if starts.iter().any(|start| line.starts_with(start)) {
            let line = line.replace("tutorial.example", "shop.example");
            assert!(readme.contains(&line), "README.md does not have: {line}");
            found += 1;
        }
    }
    assert!(found >= 3, "{found}");
}

#[test]
fn anchors_and_links_are_found() {
    let page = "# A (`b`, C)\n\n## Two-words [x](y.md) & `z_1`\n\n### Same\n\n### Same\n\n```sh\n# no heading\n[a](b)\n```\n\n\
        See [a](b.md#c), `[d](e)` and [f](#g).\n";
    let expected = ["a-b-c", "two-words-x--z_1"].map(str::to_owned);
    assert_eq!(anchors(page), BTreeSet::from(expected));
    let targets: Vec<_> = links(page).into_iter().map(|(_, link)| link).collect();
    assert_eq!(targets, ["y.md", "b.md#c", "#g"]);
    assert_eq!(
        resolve("docs/a.md", "../b/./c.md").as_deref(),
        Some("b/c.md")
    );
    assert_eq!(resolve("a.md", "../../c.md"), None);
}
