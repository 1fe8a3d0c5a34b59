//! The probe plan on real runtime code: complete, stable across builds, and reading what
//! hand-made tables and DWARF say it reads.

mod dwarf;

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tests::{GoLine, Variant, build_with, go_lines};
use tracer::binary::Binary;
use tracer::plan::{CostClass, Place, ProbePlan, Purpose, Recipe, Site, readable_at};

const V1: &[(&str, &str)] = &[("GOAMD64", "v1")];
const V3: &[(&str, &str)] = &[("GOAMD64", "v3")];

fn binary(line: GoLine, variant: Variant, env: &[(&str, &str)]) -> Result<Binary> {
    let path = build_with("calls", line, variant, env)?;
    Ok(Binary::parse(std::fs::read(path)?.into())?)
}

fn plan(binary: &Binary) -> Result<ProbePlan> {
    let plan = ProbePlan::of(binary)?;
    ensure!(plan.notes.is_empty(), "{:?}", plan.notes);
    Ok(plan)
}

fn allocation_sites(plan: &ProbePlan) -> impl Iterator<Item = (&Site, &Recipe)> {
    plan.sites.iter().filter_map(|site| match &site.purpose {
        Purpose::Alloc(recipe) => Some((site, recipe)),
        _ => None,
    })
}

/// Function and offset of each site, and its recipe: what one toolchain always gives. Sites
/// deep in functions of the GC have no offset here: what precedes them, as loads of g, takes
/// more room in a PIE.
fn shape(plan: &ProbePlan) -> Vec<(&str, u32, &Purpose)> {
    let deep = |p: &Purpose| matches!(p, Purpose::GcRecord | Purpose::AssistBegin | Purpose::AssistEnd);
    let offset = |s: &Site| if deep(&s.purpose) { 0 } else { s.offset };
    plan.sites.iter().map(|s| (s.function.as_str(), offset(s), &s.purpose)).collect()
}

#[test]
fn every_leaf_has_cheap_sites_and_the_kind_of_build_does_not_move_them() -> Result<()> {
    for line in go_lines()? {
        for env in [V1, V3] {
            let plain = binary(line, Variant::Plain, env)?;
            let plan_of_plain = plan(&plain).with_context(|| format!("Go {line} {env:?}"))?;
            check_complete(&plain, &plan_of_plain).with_context(|| format!("Go {line} {env:?}"))?;
            for variant in [Variant::Stripped, Variant::Pie, Variant::Cgo] {
                let other = plan(&binary(line, variant, env)?)?;
                assert_eq!(shape(&plan_of_plain), shape(&other), "Go {line} {env:?} {variant}");
            }
        }
    }
    Ok(())
}

fn check_complete(binary: &Binary, plan: &ProbePlan) -> Result<()> {
    for site in &plan.sites {
        assert_eq!(site.cost, CostClass::Emulated, "{site:?}");
        let byte = |at| binary.read(at, 1).map(<[u8]>::to_vec);
        assert!(byte(site.address).is_some(), "{site:?}");
        assert_eq!(binary.file_offset(site.address), Some(site.file_offset));
    }
    check_gc_sites(plan);
    let mut sites = HashMap::<&str, Vec<&Recipe>>::new();
    for (site, recipe) in allocation_sites(plan) {
        assert_ne!(recipe.ptr, Place::None, "{site:?}");
        sites.entry(&site.function).or_default().push(recipe);
    }
    // Every function that completes objects, by the names that the release gives them.
    let leaf = |name: &str| {
        name.strip_prefix("runtime.mallocgc")
            .is_some_and(|rest| rest.is_empty() || rest.contains("SC") || rest.ends_with("SlowPath"))
    };
    let functions = binary.functions()?;
    let leaves: Vec<&str> = functions.iter().map(|f| f.name).filter(|name| leaf(name)).collect();
    let specialised = leaves.len() > 1;
    ensure!(!specialised || leaves.len() == 18, "leaves: {leaves:?}");
    assert_eq!(sites.len(), leaves.len());
    for name in leaves {
        let recipes = sites.get(name).with_context(|| format!("{name} has no site"))?;
        check_recipes(binary, name, recipes);
    }
    Ok(())
}

/// Each once; and before Go 1.21, which has frames without `push`, the runtime names no
/// reason for stopping the world.
fn check_gc_sites(plan: &ProbePlan) {
    let purposes: Vec<&Purpose> =
        plan.sites.iter().map(|s| &s.purpose).filter(|p| !matches!(p, Purpose::Alloc(_))).collect();
    let pushes = plan.sites.iter().any(|site| site.instruction == "push rbp");
    let reason = if pushes { Place::Reg(0) } else { Place::None };
    let trigger = Place::Reg(7);
    assert_eq!(
        purposes,
        [
            &Purpose::GcEpoch,
            &Purpose::GcStart { trigger },
            &Purpose::GcRecord,
            &Purpose::AssistBegin,
            &Purpose::AssistEnd,
            &Purpose::StwBegin { reason },
            &Purpose::StwEnd
        ]
    );
}

/// Where a function serves tiny objects, an object that fits an existing block has a site
/// of its own; what the trap cannot read must be in the callers' code.
fn check_recipes(binary: &Binary, name: &str, recipes: &[&Recipe]) {
    let splits_mallocgc = binary.functions().is_ok_and(|f| f.by_name("runtime.mallocgcLarge").is_some());
    let two = name.contains("Tiny") || (name == "runtime.mallocgc" && !splits_mallocgc);
    assert_eq!(recipes.len(), if two { 2 } else { 1 }, "{name}: {recipes:?}");
    let fits = recipes.iter().filter(|r| r.slot == Place::Const(0)).count();
    assert_eq!(fits, usize::from(two), "{name}: {recipes:?}");
    for recipe in recipes {
        let specialised = name.contains("SC");
        assert!(specialised || !recipe.needs_call_site(), "{name}: {recipe:?}");
        assert!(!specialised || recipe.slot != Place::None, "{name}: {recipe:?}");
    }
}

#[derive(Deserialize)]
struct Table {
    sites: HashMap<String, Vec<Listed>>,
}

/// An instruction of tests/data/sites.json.
#[derive(Debug, Deserialize)]
struct Listed {
    function: String,
    offset: u32,
    ptr: String,
    size: Option<String>,
    r#type: Option<String>,
}

#[test]
fn hand_made_tables_agree_on_where_values_lie() -> Result<()> {
    let table: Table = serde_json::from_str(include_str!("../data/sites.json"))?;
    for line in go_lines()? {
        let listed = table.sites.get(line.version).with_context(|| format!("no table for Go {line}"))?;
        let binary = binary(line, Variant::Plain, V1)?;
        for site in listed {
            let readable = readable_at(&binary, &site.function, site.offset)
                .with_context(|| format!("Go {line}: nothing is readable at {site:?}"))?;
            let expected = [
                (Some(&site.ptr), &readable.ptr),
                (site.size.as_ref(), &readable.size),
                (site.r#type.as_ref(), &readable.type_),
            ];
            for (place, found) in expected {
                let Some(place) = place else { continue };
                assert!(found.contains(&parse_place(place)?), "Go {line}: {site:?}: found {found:?}");
            }
        }
    }
    Ok(())
}

/// Reads `rax`, `r10`, `u64[rbp+16]`, `u64[rsp+80]`.
fn parse_place(text: &str) -> Result<Place> {
    const NAMES: [&str; 8] = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"];
    let memory = text.strip_prefix("u64[").and_then(|rest| rest.strip_suffix(']'));
    match memory.map(|inner| inner.split_at(3)) {
        Some(("rbp", offset)) => Ok(Place::Frame(offset.parse()?)),
        Some(("rsp", offset)) => Ok(Place::Stack(offset.parse()?)),
        _ => match NAMES.iter().position(|name| *name == text) {
            Some(number) => Ok(Place::Reg(u8::try_from(number)?)),
            None => Ok(Place::Reg(text.strip_prefix('r').context("not a register")?.parse()?)),
        },
    }
}

#[test]
fn dwarf_agrees_on_where_size_and_type_lie() -> Result<()> {
    for line in go_lines()? {
        for env in [V1, V3] {
            let path = build_with("calls", line, Variant::Plain, env)?;
            let bytes = std::fs::read(path)?;
            let locations = dwarf::Locations::read(&bytes)?;
            let binary = Binary::parse(bytes.into())?;
            let mut compared = 0;
            for (site, _) in allocation_sites(&plan(&binary)?) {
                let readable = readable_at(&binary, &site.function, site.offset).context("unreadable")?;
                // Up to Go 1.23 `size` grows on the way; what was asked for is `userSize`.
                let size = if locations.knows(&site.function, "userSize") { "userSize" } else { "size" };
                for (variable, found) in [(size, &readable.size), ("typ", &readable.type_)] {
                    let Some(place) = locations.place(&site.function, variable, site.address) else {
                        continue;
                    };
                    assert!(
                        found.contains(&place),
                        "Go {line} {env:?}: {site:?}: DWARF has {variable} in {place:?}, found {found:?}"
                    );
                    compared += 1;
                }
            }
            assert!(compared > 0, "Go {line} {env:?}: DWARF says nothing at any site");
        }
    }
    Ok(())
}
